"""Controls of the page and the links that set them."""

from __future__ import annotations

import pytest

from hubmodels import FASHION, Refinement
from hubmodels.app import links
from hubmodels.app.controls import CONTROLS, SECTIONS, absent_from, settings_from
from hubmodels.app.views import View
from hubmodels.refine import PRESETS, SETTINGS
from tests.page_examples import CLOTHES, PEOPLE, TUNED


def test_every_setting_has_a_control_that_says_what_it_does():
    assert set(CONTROLS) == set(SETTINGS)
    for control in CONTROLS.values():
        assert control.section in SECTIONS and control.label and control.info.endswith(".")
        if not control.choices:
            assert control.step > 0 and not (control.whole and control.step % 1)
            assert "usual" in control.info, control.name  # a typical range
            Refinement(**{control.name: control.minimum}), Refinement(**{control.name: control.maximum})
            assert control.clamp(control.default) == control.default  # the default is in the slider's range


def test_presets_can_be_shown_by_the_sliders():
    for preset in PRESETS:
        for task in PRESETS[preset]:
            settings = Refinement.preset(preset, task=task)
            assert settings_from(settings.to_dict()) == settings


@pytest.mark.parametrize("name", list(CONTROLS))
def test_values_are_brought_into_range(name):
    control = CONTROLS[name]
    for value in ("", "abc", None, "nan", "inf", [1], "<script>"):
        assert control.clamp(value) == control.default
    if control.choices:
        assert [control.clamp(str(choice)) for choice in control.choices] == list(control.choices)
    else:
        assert (control.clamp(-1e9), control.clamp("1e9")) == (control.minimum, control.maximum)
        typed = round(control.minimum + 0.37 * (control.maximum - control.minimum))  # whole, between steps or on one
        if control.maximum > 1:
            assert control.clamp(str(typed)) == typed
        assert Refinement(**{name: control.clamp(typed + 0.25)})


def test_values_are_whole_or_of_six_digits_and_choices_of_any_case():
    iterations = CONTROLS["crf_iterations"].clamp("2.6")
    assert iterations == 3 and isinstance(iterations, int)
    assert CONTROLS["person_threshold"].clamp("0.12345678") == 0.123457
    assert CONTROLS["keep_largest"].clamp("TRUE") is True and CONTROLS["superpixel_method"].clamp("SLIC") == "slic"


def test_what_a_control_does_is_a_sentence_without_its_stage():
    assert CONTROLS["crf_appearance_weight"].info.startswith("Pull of pixels")


def restored(query: str) -> links.Shared | None:
    from urllib.parse import parse_qsl

    models = {CLOTHES: "fashion", PEOPLE: "person"}
    return links.from_query(dict(parse_qsl(query, keep_blank_values=True)), models=models, default=CLOTHES)


def test_a_link_restores_all_it_carries():
    values = {name: c.choices[-1] if c.choices else c.maximum for name, c in CONTROLS.items()}
    view = View("crf", "other", "cutout", "two-up", 30, "dress", "colour", "#12ab34", PEOPLE, "soft")
    for settings in (Refinement(), TUNED, Refinement(**values)):
        shared = links.Shared(CLOTHES, settings, view, "astronaut", ("skin", "dress"))
        assert restored(links.to_query(shared, "fashion")) == shared
    assert len(links.to_query(links.Shared(CLOTHES, Refinement(**values), view), "fashion")) < 1500


def test_boxes_that_make_no_sense_leave_nothing_out():
    for value in (None, 3, {"a": 1}, [], ["hat"], [None, 3], "", list(FASHION.names)):
        assert absent_from(value, FASHION) == ()
    for boxes in (["dress", "hat", "hair"], ("dress", "hat", "hair"), "dress,hat,hair"):
        assert absent_from(boxes, FASHION) == ("hair", "dress")


def test_a_link_is_clamped_and_cannot_break_the_page():
    assert restored("") is None and restored("__theme=dark&utm=x") is None
    shared = restored(
        "model=../../etc/passwd&task=person&example=%2Fetc%2Fpasswd&crf_iterations=9999&min_region_px=-3"
        "&vote=%3Cscript%3E&opacity=1e999&left=nowhere&colour=red&superpixel_scale=" + "9" * 1000
    )
    assert shared == links.Shared(PEOPLE, Refinement(crf_iterations=20), View())


def test_values_of_a_link_beyond_a_hundred_characters_are_not_looked_at():
    assert restored(f"crf_iterations={'7'.zfill(100)}").settings == Refinement(crf_iterations=7)
    assert restored(f"task=person&crf_iterations={'7'.zfill(101)}").settings == Refinement()


def test_a_link_without_a_served_model_shows_the_first_of_its_task():
    models = {CLOTHES: "fashion", PEOPLE: "person", "u2net_person": "person"}
    for query in ({"task": "person"}, {"task": "person", "model": "u2net_shoes"}):
        assert links.from_query(query, models=models, default=CLOTHES).model == PEOPLE


def test_a_link_cuts_out_labels_of_its_model_and_compares_with_served_models():
    view = restored(f"model={PEOPLE}&label=person&other={CLOTHES}").view
    assert (view.label, view.other) == ("person", CLOTHES)
    for label in ("background", "dress", "hat"):
        assert restored(f"model={PEOPLE}&label={label}&other=u2net_shoes").view == View()


def test_absent_labels_of_a_link_are_those_of_its_model():
    def absent(model: str, names: str) -> tuple[str, ...]:
        return restored(f"model={model}&example=astronaut&absent={names}").absent

    assert absent(CLOTHES, "dress,hat,skin,background,dress") == ("skin", "dress")
    assert restored("example=astronaut&absent=dress").absent == ("dress",)
    assert absent(PEOPLE, "dress") == absent(PEOPLE, "person") == ()
    assert absent(CLOTHES, "skin,hair,t-shirt,shoes,pants,dress") == ()  # nothing would be left


def test_absent_labels_travel_with_their_photo_alone():
    """Those of a photo that stays behind would be left out of whichever comes in its place."""
    own = links.Shared(CLOTHES, Refinement(), View(), absent=("dress",))
    assert "absent" not in links.to_query(own, "fashion")
    for query in ("absent=dress", "absent=dress&example=nobody"):
        assert restored(query).absent == ()


def test_models_of_a_link_that_are_not_served_are_named_if_they_look_like_names():
    served = [CLOTHES, PEOPLE]
    assert links.not_served({"model": CLOTHES, "other": PEOPLE}, served) == {}
    assert links.not_served({"model": "u2net_2.fashion", "other": ""}, served) == {"model": "u2net_2.fashion"}
    assert links.not_served({"other": "x" * 60}, served) == {"other": "x" * 60}
    for text in ("call 555-1234", "<b>", "x" * 61, "../etc"):
        assert links.not_served({"other": text}, served) == {"other": "another model"}


@pytest.mark.parametrize(
    ("headers", "url"),
    [
        ({"host": "127.0.0.1:7860"}, "http://127.0.0.1:7860"),
        ({"host": "x", "x-forwarded-host": "me.hf.space", "x-forwarded-proto": "https"}, "https://me.hf.space"),
        ({"host": "x", "x-forwarded-proto": "https,http"}, "https://x"),
        ({"host": "x", "x-forwarded-proto": "https , http"}, "https://x"),
        ({"host": "[::1]:7860"}, "http://[::1]:7860"),
        ({"host": "x'; rm -rf /; '"}, "http://127.0.0.1:7860"),
        ({"host": "x", "x-forwarded-proto": "$(id)"}, "http://127.0.0.1:7860"),
        ({"host": "x", "x-forwarded-proto": "javascript"}, "http://127.0.0.1:7860"),
        ({"host": "x", "x-forwarded-host": ", y"}, "http://127.0.0.1:7860"),
        ({}, "http://127.0.0.1:7860"),
    ],
    ids=[
        "plain",
        "proxy",
        "proxies",
        "spaces",
        "IPv6",
        "hostile",
        "hostile proxy",
        "another scheme",
        "no host",
        "none",
    ],
)
def test_the_address_of_the_page_comes_from_the_request(headers, url):
    assert links.base_url(headers) == url


def test_a_host_may_say_a_path_or_the_whole_address():
    headers = {"host": "127.0.0.1:7860", "x-forwarded-host": "other", "x-forwarded-proto": "https"}
    assert links.base_url(headers, root_path="/labels") == "https://other/labels"
    for address in ("https://example.org/labels", "http://example.org"):
        assert links.base_url(headers, root_path=address) == links.base_url(headers, root_path=f"{address}/") == address

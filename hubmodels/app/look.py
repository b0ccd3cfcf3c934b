"""Theme, style sheet and the few lines of script of the page."""

from __future__ import annotations

import json

import gradio as gr

THEME = gr.themes.Base(
    primary_hue=gr.themes.colors.teal,
    neutral_hue=gr.themes.colors.slate,
    radius_size=gr.themes.sizes.radius_lg,
    # Bundled with Gradio, so no request leaves. Its weight 600 lacks Latin letters (6.31), hence 700.
    font=(gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "system-ui", "sans-serif"),
).set(
    body_background_fill="*neutral_50",
    block_background_fill="white",
    block_info_text_color="*neutral_600",  # the theme's neutral_400 is too pale to read on white
    block_info_text_color_dark="*neutral_300",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_400",
    block_label_text_color="*neutral_600",
    block_title_text_color="*neutral_700",
    block_title_text_weight="600",
    slider_color="*primary_600",
)

CSS = """
.gradio-container {max-width: 1280px !important; margin: 0 auto !important}
#intro .html-container, #privacy .html-container {padding: 0}
#intro h1 {font-size: 1.7rem; margin: 0}
#intro p {margin: .1rem 0 0; color: var(--body-text-color-subdued); font-size: 1.05rem}
#layout {display: grid; grid-template-columns: minmax(300px, 4fr) 8fr; align-items: start}
#layout .column {min-width: 0 !important; gap: 12px}
#layout, #controls, #answer {gap: 16px}
#tune input[type=range]::-webkit-slider-thumb, #view input[type=range]::-webkit-slider-thumb {
  background: var(--slider-color)}
#tune input[type=range]::-moz-range-thumb {background: var(--slider-color)}
#presets, #files {gap: 8px}
#presets button, #files button {min-width: 0 !important; flex: 1 1 auto}
#choose {gap: 12px}
#choose > *, #cut > * {min-width: 130px !important}

/* the two pictures */
#compare .pair {margin: 0; background: var(--block-background-fill)}
#compare .stage {position: relative; margin: 0 auto; aspect-ratio: var(--ratio);
  max-width: calc(min(68vh, 640px) * var(--ratio)); border-radius: var(--radius-lg); overflow: hidden}
#compare img {display: block; width: 100%; height: 100%; object-fit: fill; margin: 0; user-select: none}
#compare .slider img {position: absolute; inset: 0}
#compare .slider .left {clip-path: inset(0 calc(100% - var(--cut, 50%)) 0 0)}
#compare .slider .line {position: absolute; top: 0; bottom: 0; left: var(--cut, 50%); width: 3px;
  transform: translateX(-50%); background: white; box-shadow: 0 0 4px rgb(0 0 0 / .6); pointer-events: none}
#compare .slider .line::after {content: "◂ ▸"; position: absolute; top: 50%; left: 50%; color: #0f766e;
  transform: translate(-50%, -50%); background: white; padding: .35rem .55rem; border-radius: 999px;
  font-size: .9rem; line-height: 1; white-space: nowrap; box-shadow: 0 1px 4px rgb(0 0 0 / .5)}
#compare .cut {position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize;
  touch-action: pan-y}
input:is([type=range], [type=radio], [type=checkbox]):focus-visible, .wrap:has(> .wrap-inner input:focus-visible) {
  outline: 3px solid var(--primary-500) !important; outline-offset: 2px}
#compare .stage:has(.cut:focus-visible) {outline: 3px solid var(--primary-500); outline-offset: 2px}
#compare .two-up .stage {display: grid; grid-template-columns: 1fr 1fr; gap: 8px; direction: rtl;
  aspect-ratio: calc(2 * var(--ratio)); max-width: calc(min(68vh, 640px) * 2 * var(--ratio)); border-radius: 0}
#compare .two-up img {border-radius: var(--radius-lg)}
#compare figcaption {display: grid; grid-template-columns: 1fr auto 1fr; align-items: center; gap: .6rem;
  margin-top: .5rem; color: var(--body-text-color-subdued); font-size: .95rem}
#compare figcaption span:last-child {text-align: right}
#compare .full {border: 1px solid var(--border-color-primary); border-radius: 999px; padding: .1rem .7rem;
  background: none; color: inherit; font-size: .85rem}
#compare .full:focus-visible {outline: 2px solid var(--primary-500)}
#compare figure:fullscreen {display: flex; flex-direction: column; justify-content: center; padding: 1rem}
#compare figure:fullscreen .full .enter, #compare figure:not(:fullscreen) .full .leave {display: none}
#compare figure:fullscreen .stage {max-width: none; width: min(100%, 86vh * var(--ratio))}
#compare figure.two-up:fullscreen .stage {width: min(100%, 172vh * var(--ratio))}
#compare .notice {min-height: 320px; display: flex; flex-direction: column; align-items: center;
  justify-content: center; text-align: center; padding: 2rem 1.2rem; border-radius: var(--radius-lg);
  border: 2px dashed var(--border-color-primary); color: var(--body-text-color-subdued); font-size: 1.1rem}
#compare .notice p {margin: 0; max-width: 34rem; overflow-wrap: anywhere}
#compare .notice button {margin-top: 1rem; border: 1px solid var(--border-color-primary); border-radius: 999px;
  padding: .3rem 1.2rem; background: none; color: inherit}
#compare .notice button:focus-visible {outline: 2px solid var(--primary-500)}
#compare .notice.wrong {border-color: #b45309; border-style: solid; color: var(--body-text-color)}
#compare .notice .mark {width: 2.2rem; height: 2.2rem; line-height: 2.2rem; border-radius: 50%; margin-bottom: .8rem;
  background: #b45309; color: white; font-weight: 700}

/* what stands below them */
#legend .summary {margin: 0 0 .7rem}
#legend .note {margin: 0 0 .6rem; padding: .35rem .7rem; border-left: 4px solid var(--primary-500);
  background: var(--background-fill-secondary)}
#legend .legend {list-style: none; margin: 0; padding: 0; display: grid; gap: .3rem}
#legend li {display: grid; grid-template-columns: 1rem 6.2rem 1fr 3.6rem; gap: .6rem; align-items: center; margin: 0}
#legend li.absent {opacity: .65}
#legend .swatch {width: 1rem; height: 1rem; border-radius: 4px; border: 1px solid var(--border-color-primary)}
#legend .swatch.clear {border: 1px dashed var(--body-text-color-subdued)}
#legend .bar {height: .5rem; border-radius: 4px; background: var(--border-color-primary); overflow: hidden}
#legend .bar > span {display: block; height: 100%; background: var(--body-text-color-subdued)}
#legend .share {text-align: right; font-variant-numeric: tabular-nums}
#legend .facts, #legend .times, #privacy p, #truth-help p {color: var(--body-text-color-subdued); font-size: .9rem;
  margin: .8rem 0 0}
#legend .times {font-variant-numeric: tabular-nums}
#legend .facts {margin-top: .3rem}
#scores:not(:has(table)), .block:has(> #scores):not(:has(table)) {display: none}
:is(#model, #choose, #cut) input {text-overflow: ellipsis; padding-right: 1.6rem}
#scores table.scores {border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums}
#scores caption {text-align: left; font-weight: 700; padding-bottom: .3rem}
#scores th, #scores td {padding: .15rem .5rem; text-align: right; border-top: 1px solid var(--border-color-primary)}
#scores th[scope=row], #scores th:first-child {text-align: left; font-weight: 400}
#scores .up::before {content: "▲ "} #scores .down::before {content: "▼ "}
#scores .up {color: #0f766e} #scores .down {color: #b45309}
.dark #scores .up {color: #5eead4} .dark #scores .down {color: #fbbf24}
.copy {position: relative}
.copy .label {font-weight: 700; color: var(--block-title-text-color)}
.copy button {position: absolute; top: 0; right: 0; border: 1px solid var(--border-color-primary); border-radius: 999px;
  padding: .1rem .8rem; background: none; color: inherit; font-size: .85rem}
.copy button:focus-visible, .copy pre:focus-visible {outline: 2px solid var(--primary-500)}
.copy pre {white-space: pre-wrap; overflow-wrap: anywhere; margin: .5rem 0 0; padding: .6rem .8rem;
  border-radius: var(--radius-lg); overflow-x: auto;
  max-height: 22rem; background: var(--background-fill-secondary); color: inherit;
  font: .85rem/1.45 ui-monospace, monospace}
#code [role=tab][aria-selected=true] {color: var(--primary-700)}  /* the theme's primary_500 is too pale on white */
.dark #code [role=tab][aria-selected=true] {color: var(--primary-400)}
#answer:has(#compare .notice) :is(#details, #take, #code, #truth-part) {display: none}  /* nothing to show or take */
footer .divider {display: none !important}
@media (max-width: 820px) {  /* one column, and the sliders right below the picture they change */
  #layout {display: flex; flex-direction: column; align-items: stretch}
  #controls, #answer {display: contents}
  #input {order: 1} #view {order: 2} #tune {order: 3} #details {order: 4} #truth-part {order: 5} #take {order: 6}
  #code {order: 7}
  #compare .notice {min-height: 200px}
}
@media (prefers-reduced-motion: reduce) {* {transition: none !important; animation-duration: .01s !important}}
"""

# The text beside a control is its tooltip as well: set when it is first pointed at, as closed parts are not there yet.
TOOLTIPS = """() => {
  document.addEventListener('pointerover', event => {
    const block = event.target.closest && event.target.closest('#tune .block');
    const info = block && !block.title && block.querySelector('[class*=info-text]');
    if (info) block.title = info.textContent.trim();
  });
}"""
AGAIN = "document.querySelector('#again').click()"
# What a link sets counts as changed too, one control after the other; changes ask for an answer once it is all there.
_OPENED = "document.documentElement.dataset.opened"
OPEN = f"() => {{ {_OPENED} = 'yes'; }}"
OPEN_AND_ASK = f"() => {{ {_OPENED} = 'yes'; {AGAIN}; }}"
ASK = f"() => {{ if ({_OPENED}) {AGAIN}; }}"
# Not a click on the button that holds the file: that gets its address only a moment after the answer came.
SAVE_FILE = """file => {
  const link = document.createElement('a');
  link.href = file.url;
  link.download = file.orig_name;
  link.click();
}"""


def watch_connection(notice: str) -> str:
    """A function for the browser: where a call cannot be sent, `notice` stands in the place of the pictures.

    Gradio says so in a corner for a moment, and leaves the pictures as if they were the answer.
    """
    return f"""() => {{
  const send = window.fetch;
  window.fetch = async (...call) => {{
    try {{ return await send(...call); }}
    catch (error) {{
      const place = document.querySelector('#compare .pair, #compare .notice');
      const address = String(call[0] && call[0].url || call[0]);
      const lost = error.name !== 'AbortError' && address.includes('/queue/join');
      if (lost && place) {{  // its element stays: the page's framework counts on it
        const made = new DOMParser().parseFromString({json.dumps(notice)}, 'text/html').body.firstElementChild;
        place.className = made.className;
        place.setAttribute('role', made.getAttribute('role'));
        place.replaceChildren(...made.childNodes);
      }}
      throw error;
    }}
  }};
}}"""


def as_used(low: float, high: float, default: float, *, whole: bool) -> str:
    """A function for the browser: the number that the server makes of one that was typed, as `Control.clamp` does."""
    within = f"Math.min({high}, Math.max({low}, value))"
    return f"value => value === null ? {default} : Number({within}.toFixed({0 if whole else 6}))"


def show(content: str) -> str:
    """A function for the browser that puts HTML in the place of an output, without the server."""
    return f"() => {json.dumps(content)}"

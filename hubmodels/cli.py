"""The `hubmodels` command: label photos, list models, show facts, serve the page, check and publish weights.

Commands on many photos have files of their own, in `hubmodels.commands`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hubmodels import __version__
from hubmodels.commands.areas import add_areas
from hubmodels.commands.coco import add_coco
from hubmodels.commands.cutout import add_cutout
from hubmodels.commands.label import add_label
from hubmodels.commands.model_options import MODEL_HELP, REVISION_HELP
from hubmodels.commands.tune import add_tune
from hubmodels.ctrl_c import INTERRUPTED
from hubmodels.entries import DEFAULTS, ENTRIES, Entry, find_entry, list_models
from hubmodels.entry_docs import entry_facts, text_table
from hubmodels.errors import HubmodelsError
from hubmodels.model_names import find_model
from hubmodels.page_options import add_options
from hubmodels.paths import printable

UNHEARD = 141  # what shells say of a command that was ended because nobody reads what it writes


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="hubmodels", description="Labels for every pixel of photos of people.")
    parser.add_argument("--version", action="version", version=f"hubmodels {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    add_label(commands)
    add_tune(commands)
    add_cutout(commands)
    add_coco(commands)
    add_areas(commands)
    listing = commands.add_parser("list", help="table of the published models")
    listing.add_argument("--task", choices=sorted(DEFAULTS))
    listing.set_defaults(handler=_list)

    info = commands.add_parser("info", help="all facts about one model")
    info.add_argument("name", metavar="NAME")
    info.set_defaults(handler=_info)
    _add_publishing(commands)

    demo = commands.add_parser("demo", help="serve the page; needs the extra: pip install 'hubmodels[demo]'")
    add_options(demo)
    demo.set_defaults(handler=_demo)

    space = commands.add_parser("space", help="write the page as a Hugging Face Space, and perhaps upload it")
    space.add_argument("out", type=Path, metavar="OUT", help="folder for the Space; new, empty, or a Space of before")
    space.add_argument("--title", default="hubmodels", help="what it is called (%(default)s)")
    space.add_argument("--push", metavar="USER/NAME", help="upload it, with the token of `hf auth login` or HF_TOKEN")
    space.add_argument("--private", action="store_true", help="with --push: only for you to see")
    space.set_defaults(handler=_space)

    export = commands.add_parser("export", help="write one model as ONNX or as a program of torch.export")
    export.add_argument("name", metavar="MODEL", help=MODEL_HELP)
    export.add_argument("--revision", metavar="REV", help=REVISION_HELP)
    export.add_argument("--format", choices=("onnx", "torch"), default="onnx", help="(%(default)s)")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="ends in .onnx or .pt2")
    export.set_defaults(handler=_export)
    return parser


def _add_publishing(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """card, publish and verify."""
    card = commands.add_parser("card", help="print the model card of one model")
    card.add_argument("name", metavar="NAME")
    card.add_argument("--repo", metavar="USER/REPO", help="the repository that its snippets name (user/NAME)")
    card.set_defaults(handler=_card)

    publish = commands.add_parser("publish", help="commit one model to the Hugging Face Hub (log in: hf auth login)")
    publish.add_argument("name", metavar="NAME")
    publish.add_argument("repo", metavar="USER/REPO", help="made if there is none")
    publish.add_argument("--private", action="store_true", default=None, help="if it is made, make it private")
    publish.add_argument("--dry-run", action="store_true", help="write the files to --out or nowhere, send nothing")
    publish.add_argument("--out", type=Path, metavar="DIR", help="with --dry-run: keep the files here")
    publish.set_defaults(handler=_publish)

    verify = commands.add_parser("verify", help="hash all shipped weights and compare with the published digests")
    verify.set_defaults(handler=_verify)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 if a photo or a check failed, 2 if the call makes no sense.

    Stopped by Ctrl-C it ends with 130, and with 141 if what reads its output ends first, such as `head`.
    """
    for name in ("stdout", "stderr"):  # closed by the caller, as services may
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))
    try:
        try:
            return _answer(argv)
        finally:
            print(end="", flush=True)  # or else the interpreter would find out at exit, and complain
    except BrokenPipeError:
        _write_nowhere()
        return UNHEARD
    except OSError as error:  # of this very print: a full disk, most likely
        print(f"hubmodels: what it prints cannot be written: {error.strerror}", file=sys.stderr)
        _write_nowhere()
        return 2
    except KeyboardInterrupt:
        print("\nhubmodels: stopped", file=sys.stderr)
        return INTERRUPTED


def _answer(argv: Sequence[str] | None) -> int:
    """Run the command, and say in one line what went wrong."""
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.handler(arguments)
    except BrokenPipeError:
        raise
    except (HubmodelsError, ValueError, OSError, ImportError) as error:  # ImportError: an extra is not installed
        print(f"hubmodels: {printable(error)}", file=sys.stderr)
        return 2


def _write_nowhere() -> None:
    """Send what is still to be written to where nobody has to read it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a stream that is no file
            os.dup2(nowhere, stream.fileno())


def _list(arguments: argparse.Namespace) -> int:
    print(text_table(ENTRIES[name] for name in list_models(arguments.task)))
    return 0


def _info(arguments: argparse.Namespace) -> int:
    print(entry_facts(find_entry(arguments.name)))
    return 0


def _card(arguments: argparse.Namespace) -> int:
    from hubmodels.cards import entry_card

    print(entry_card(find_entry(arguments.name), repo=arguments.repo or f"user/{arguments.name}"), end="")
    return 0


def _publish(arguments: argparse.Namespace) -> int:
    if arguments.out is not None and not arguments.dry_run:
        raise ValueError("--out is for --dry-run; without it the files go to the Hub")
    entry = find_entry(arguments.name)

    from hubmodels.publish import publish, write_repository

    if not arguments.dry_run:
        print(publish(entry, arguments.repo, private=arguments.private))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        for path in write_repository(entry, arguments.repo, arguments.out or Path(temporary)):
            print(f"{path.name:20}{path.stat().st_size:>12,} bytes")
    print(f"dry run: nothing was sent to {arguments.repo}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from hubmodels.weights_files import verify_shipped

    failed = 0
    for name, is_well, text in verify_shipped(ENTRIES.values()):
        failed += not is_well
        print(f"{'ok' if is_well else 'FAILED':8}{name}: {text}")
    print(f"{failed} failed" if failed else "all weights are as published")
    return 1 if failed else 0


def _demo(arguments: argparse.Namespace) -> int:
    from hubmodels.app.server import serve

    return serve(arguments)


def _space(arguments: argparse.Namespace) -> int:
    from hubmodels.app.space import push_space, write_space

    if arguments.private and not arguments.push:
        raise ValueError("--private is for --push; without it nothing is sent")
    files = write_space(arguments.out, title=arguments.title)
    size = sum((arguments.out / file).stat().st_size for file in files)
    print(f"{len(files)} files, {size / 1e6:.1f} MB, in {arguments.out}; try it: cd {arguments.out} && python demo.py")
    if arguments.push:
        print(f"uploaded to {push_space(arguments.out, arguments.push, private=arguments.private)}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    source = find_model(arguments.name, revision=arguments.revision)
    if isinstance(source, Entry) and not source.is_trained:
        raise ValueError(f"{arguments.name} is an architecture to train, without weights; see `hubmodels list`")

    from hubmodels.hub import load_model
    from hubmodels.model_export import export_model

    facts = {}
    if isinstance(source, Entry):
        facts = {"license": source.license, "data": source.data, "weights_sha256": source.sha256}
    model = load_model(arguments.name, revision=arguments.revision)
    path = export_model(model, arguments.out, format=arguments.format, facts=facts)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0

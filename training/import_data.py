"""Convert original downloads into the layout of `training/data.py`: `python -m training.import_data NAME SRC DST`.

    fashionista   SRC/images/NNNN.jpg, SRC/labels/NNNN_clothes.png and NNNN_person.png     -> DST/fashionista
    ccp           SRC/photos/NNNN.jpg, SRC/annotations/pixel-level/NNNN.mat (`groundtruth`) -> DST/ccp

DST is a data root, what `--data` of the other commands takes. Numbers are kept. Files are written over those of an
earlier run, each to a temporary name first, and splits.json or tags.json comes last, so that a stopped run is only
repeated.

The outcome is that of the data the shipped models learnt from, which decides the following.

Photos. All those photos are RGB JPEGs, 400x600 or 550 pixels wide, and the bytes before the scan are the same as
Pillow's for quality 75: 4:2:0, standard Huffman tables, no metadata. DCT coefficients show an earlier compression on
the same 8x8 grid, in each of 238 photos of CCP (quality 90) and in Fashionista's as a whole (about 92), so they were
not resized after it; and encoding them again moves them as much as photos after one pass at 75, not two. So either the
originals have that form and were copied, or they have another and were encoded once. Hence a photo in that form is
copied byte for byte, and any other is encoded in it at its own size; another size is refused. EXIF orientation is not
applied, because annotations belong to the stored pixels.

Labels. Grey 8-bit PNGs of ids without a palette, `clothes` as 0..6 in the order of `hubmodels.labels.FASHION`, `person`
as 0 and 1, CCP's as the 59 tags of tags.json. Of originals the index of a palette is the id. `clothes` in the colours
of Pascal VOC's palette and a person mask with another second value than 1, as other readers of these files expect, are
read too.

Splits. Without `--splits` those of the shipped models. A photo that no split names is left out: of the 600 photos of
Fashionista 120 are held back as a second test set. A splits file of your own may move photos between train and val or
leave some out, but test photos, and photos of no split, never become train or val. Of CCP the 202 photos that the
shared data lack are left out, since near-duplicates of the second test set were removed from it; photos without an
annotation go to unlabelled/.
"""

from __future__ import annotations

import argparse
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from hubmodels.files import make_folder, write_bytes
from hubmodels.labels import FASHION
from training.data import DATA_ROOT, SPLITS
from training.errors import DataError, run_command
from training.files import read_json
from training.originals import check_tags, clothes_ids, person_ids, read_photo, some_of, tag_ids, text_of

LAYOUT = Path(__file__).parent / "layout"  # splits, tag names and left-out photos of the shared data
FASHIONISTA_SIZE = (400, 600)  # width, height
CCP_WIDTH = 550
CCP_NUMBERS = range(1, 2099)


def import_fashionista(src: Path, dst: Path, *, splits: Path | None = None) -> dict[str, int]:
    """Convert Fashionista.

    Args:
        src: the download, with images/ and labels/.
        dst: the data root; DST/fashionista is written.
        splits: JSON of the lists train, val and test; the shipped models' unless given.

    Returns:
        Photos per split, and `left out`: photos of `src` that no split names.

    Raises:
        DataError: a file is missing or damaged, has a wrong size or an unknown label, or the splits are not usable.
        OutputError: `dst` cannot be written.
    """
    splits = splits or LAYOUT / "fashionista_splits.json"
    lists = read_splits(splits)
    numbers = sorted(number for each in lists.values() for number in each)
    photos = [src / "images" / f"{number:04d}.jpg" for number in numbers]
    clothes = [src / "labels" / f"{path.stem}_clothes.png" for path in photos]
    person = [src / "labels" / f"{path.stem}_person.png" for path in photos]
    _require([*photos, *clothes, *person], "complete the download, or name only the photos you have in a --splits file")
    out = _folder(src, dst, "fashionista")
    for photo, *labels in tqdm(list(zip(photos, clothes, person, strict=True)), desc="fashionista", unit="photo"):
        data, size = read_photo(photo)
        if size != FASHIONISTA_SIZE:
            raise DataError(
                f"{photo}: expected {text_of(FASHIONISTA_SIZE)} pixels; got {text_of(size)}: use the original file"
            )
        fashion, persons = clothes_ids(labels[0], size), person_ids(labels[1], size)
        write_bytes(data, out / "images" / photo.name)
        write_bytes(png(fashion), out / "labels_fashion" / f"{photo.stem}.png")
        write_bytes(png(persons), out / "labels_person" / f"{photo.stem}.png")
    write_bytes((json.dumps(FASHION.names, indent=1) + "\n").encode(), out / "classes.json")
    write_bytes(splits.read_bytes(), out / "splits.json")
    left_out = len({path.name for path in (src / "images").glob("*.jpg")} - {path.name for path in photos})
    return {**{split: len(each) for split, each in lists.items()}, "left out": left_out}


def import_ccp(src: Path, dst: Path) -> dict[str, int]:
    """Convert Clothing Co-Parsing.

    Args:
        src: the download, with photos/ and annotations/pixel-level/; label_list.mat is compared if it is there.
        dst: the data root; DST/ccp is written.

    Returns:
        Numbers of photos: `labelled`, `unlabelled` and `left out`.

    Raises:
        DataError: a file is missing or damaged, has a wrong size, an unknown tag or an unknown number.
        OutputError: `dst` cannot be written.
    """
    left_out = {f"{number:04d}" for number in json.loads((LAYOUT / "ccp_left_out.json").read_text())}
    tags = (LAYOUT / "ccp_tags.json").read_bytes()
    photos = {path.stem: path for path in _numbered(src / "photos", "jpg")}
    annotations = {path.stem: path for path in _numbered(src / "annotations" / "pixel-level", "mat")}
    _require([src / "photos" / f"{stem}.jpg" for stem in annotations if stem not in left_out], "complete the download")
    if (names := src / "label_list.mat").is_file():
        check_tags(names, json.loads(tags))
    out = _folder(src, dst, "ccp")
    counts = {"labelled": 0, "unlabelled": 0, "left out": 0}
    for stem, photo in tqdm(photos.items(), desc="ccp", unit="photo"):
        if stem in left_out:
            counts["left out"] += 1
            continue
        data, size = read_photo(photo)
        if size[0] != CCP_WIDTH:
            raise DataError(
                f"{photo}: expected a width of {CCP_WIDTH} pixels; got {text_of(size)}: use the original file"
            )
        unlabelled = out / "unlabelled" / photo.name
        if stem in annotations:
            labels = tag_ids(annotations[stem], size, tags=len(json.loads(tags)))
            write_bytes(data, out / "images" / photo.name)
            write_bytes(png(labels), out / "labels_tags" / f"{stem}.png")
            unlabelled.unlink(missing_ok=True)  # of a run before its annotation was there
            counts["labelled"] += 1
        else:
            write_bytes(data, unlabelled)
            counts["unlabelled"] += 1
    write_bytes(tags, out / "tags.json")
    return counts


def read_splits(path: Path) -> dict[str, list[int]]:
    """Photo numbers of train, val and test from a splits file.

    Raises:
        DataError: missing, not three lists of different numbers, or a test photo would be trained or chosen on.
    """
    lists = read_json(path)
    if not isinstance(lists, dict) or set(lists) != set(SPLITS):
        got = f"the keys {', '.join(map(str, lists)) or 'none'}" if isinstance(lists, dict) else type(lists).__name__
        raise DataError(f"{path}: expected a JSON object of the lists {', '.join(SPLITS)}; got {got}")
    for split, numbers in lists.items():
        if not isinstance(numbers, list) or not all(type(number) is int and 0 < number < 10_000 for number in numbers):
            raise DataError(f"{path}: expected photo numbers from 1 in {split}, like [1, 2]; got {numbers!r:.60}")
    numbers = [number for split in SPLITS for number in lists[split]]
    if not numbers:
        raise DataError(f"{path}: expected photo numbers; got three empty lists")
    if twice := sorted({number for number in numbers if numbers.count(number) > 1}):
        raise DataError(f"{path}: expected every photo once; got {some_of(twice)} more than once: keep one of each")
    ours = json.loads((LAYOUT / "fashionista_splits.json").read_text())
    if leaked := sorted({*lists["train"], *lists["val"]} - {*ours["train"], *ours["val"]}):
        raise DataError(
            f"{path}: expected only train and val photos of the shipped models in train and val; got "
            f"{some_of(leaked)}, on which test scores are taken: move them to test or leave them out"
        )
    return lists


def png(ids: np.ndarray) -> bytes:
    """An 8-bit grey PNG of (H, W) uint8 ids."""
    buffer = io.BytesIO()
    Image.fromarray(ids).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _numbered(folder: Path, suffix: str) -> list[Path]:
    """The files NNNN.suffix of a folder of CCP, sorted."""
    if not folder.is_dir():
        raise DataError(f"{folder}: missing; expected CCP's files NNNN.{suffix}: is SRC the folder that holds photos/?")
    paths = sorted(folder.glob(f"*.{suffix}"))
    if not paths:
        raise DataError(f"{folder}: expected files NNNN.{suffix}; got none: complete the download")
    for path in paths:
        if not re.fullmatch(r"\d{4}", path.stem) or int(path.stem) not in CCP_NUMBERS:
            raise DataError(
                f"{path}: expected numbers 0001 to {CCP_NUMBERS[-1]}; got {path.stem!r}: move the file away"
            )
    return paths


def _require(paths: Iterable[Path], remedy: str) -> None:
    """Raise DataError if files are missing, before anything is written."""
    if missing := [path for path in paths if not path.is_file()]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]}{more}: expected original files; got none: {remedy}")


def _folder(src: Path, dst: Path, name: str) -> Path:
    """DST/NAME, which must not be the originals themselves."""
    out = dst / name
    if out.resolve() == src.resolve():
        raise DataError(f"{out}: expected a data root away from the originals; got the originals: choose another DST")
    return make_folder(out)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.import_data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=("fashionista", "ccp"))
    parser.add_argument("src", type=Path, metavar="SRC", help="the original download")
    parser.add_argument("dst", type=Path, metavar="DST", help=f"the data root to write; others read {DATA_ROOT}")
    parser.add_argument("--splits", type=Path, metavar="JSON", help="splits of your own (fashionista only)")
    arguments = parser.parse_args(argv)
    if arguments.name == "ccp":
        if arguments.splits is not None:
            parser.error("--splits is for fashionista: CCP has no splits, all of it is for training")
        counts = import_ccp(arguments.src, arguments.dst)
    else:
        counts = import_fashionista(arguments.src, arguments.dst, splits=arguments.splits)
    print(f"{arguments.dst / arguments.name}: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))


if __name__ == "__main__":
    run_command(main)

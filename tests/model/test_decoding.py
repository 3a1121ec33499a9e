"""From image files to the RGB pictures that are scored: each kind of file against its plain eight-bit twin."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import NO_ANNOTATIONS, REPOSITORY, SMALL_BUNDLE, TOOLS, read_jsonl, run_command, write_jsonl
from saiqa import Scorer, facts
from saiqa.engines import Rating, Request, load_engine
from saiqa.model.decoding import FIRST_FRAME, ORIENTATION_TAG, OVER_WHITE, decode, open_image, size_of

rng = np.random.default_rng(7)
GREY = rng.integers(0, 256, (40, 56), dtype=np.uint8)
COLOUR = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
SMOOTH = np.asarray(Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)).resize((56, 40), 3))
ALPHA = np.where(np.arange(56) < 28, 255, 0).astype(np.uint8)[None].repeat(40, 0)


def stored(image: Image.Image, kind: str, **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return io.BytesIO(file.getvalue())


def seen(file, upright: bool = False) -> np.ndarray:
    return np.asarray(decode(open_image(file), upright).image)


def grey_as_rgb(values: np.ndarray) -> np.ndarray:
    return values[..., None].repeat(3, -1)


# ---- depth -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_of_grey_are_not_white(kind):
    deep = Image.fromarray(GREY.astype(np.uint16) * 257)
    assert (seen(stored(deep, kind)) == grey_as_rgb(GREY)).all()


def test_sixteen_bits_of_colour():
    """Pillow cannot write it, so the PNG is assembled here."""
    import struct
    import zlib

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in COLOUR.astype(np.uint16) * 257)
    header = struct.pack(">IIBBBBB", COLOUR.shape[1], COLOUR.shape[0], 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks]
    assert (seen(io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(packed))) == COLOUR).all()


@pytest.mark.parametrize("values", [GREY / np.float32(255), GREY.astype(np.float32)], ids=["0 to 1", "0 to 255"])
def test_floats_with_a_defined_white(values):
    assert (seen(stored(Image.fromarray(values.astype(np.float32)), "TIFF")) == grey_as_rgb(GREY)).all()


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (GREY.astype(np.float32) * 2.5, "it holds floats from"),
        (GREY.astype(np.float32) - 9, "it holds floats from"),
        (np.where(GREY > 9, GREY, np.nan).astype(np.float32), "it holds floats from"),
        (GREY.astype(np.int32) * 1000, "nothing says which value is white"),
    ],
)
def test_values_without_a_defined_white_are_refused(values, why):
    with pytest.raises(ValueError, match=why):
        seen(stored(Image.fromarray(values), "TIFF"))


# ---- colours and transparency ----------------------------------------------------------------------------------------


def test_cmyk_shows_its_colours():
    assert (seen(stored(Image.fromarray(COLOUR).convert("CMYK"), "TIFF")) == COLOUR).all()
    twin = seen(stored(Image.fromarray(SMOOTH), "JPEG", quality=98))
    assert np.abs(seen(stored(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", quality=98)).astype(int) - twin).mean() < 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_alpha_is_seen_over_white(kind):
    image = Image.fromarray(np.dstack([COLOUR, ALPHA]))
    decoded = decode(open_image(stored(image, kind)), upright=False)
    assert decoded.notes == (OVER_WHITE,)
    assert (np.asarray(decoded.image) == np.where(ALPHA[..., None] > 0, COLOUR, 255)).all()


def test_half_transparent_parts_are_mixed_with_white():
    image = Image.fromarray(np.dstack([COLOUR, np.full_like(ALPHA, 128)]))
    mixed = (COLOUR * (128 / 255) + 127).round()
    assert np.abs(seen(stored(image, "PNG")) - mixed).max() <= 1


def test_grey_with_alpha_and_opaque_alpha():
    assert (seen(stored(Image.fromarray(np.dstack([GREY, ALPHA])), "PNG")) == grey_as_rgb(np.where(ALPHA > 0, GREY, 255))).all()
    opaque = decode(open_image(stored(Image.fromarray(np.dstack([COLOUR, np.full_like(ALPHA, 255)])), "PNG")), upright=False)
    assert opaque.notes == () and (np.asarray(opaque.image) == COLOUR).all()


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palette_with_a_transparent_entry(kind):
    palette = Image.fromarray(GREY % 4, "P")
    palette.putpalette([10, 20, 30, 90, 80, 70, 200, 100, 0, 0, 0, 200] + [0] * (3 * 252))
    colours = np.array([[10, 20, 30], [90, 80, 70], [255, 255, 255], [0, 0, 200]])
    decoded = decode(open_image(stored(palette, kind, transparency=2)), upright=False)
    assert decoded.notes == (OVER_WHITE,)
    assert (np.asarray(decoded.image) == colours[GREY % 4]).all()


def test_sixteen_bits_with_a_transparent_value():
    deep = Image.fromarray((GREY.astype(np.uint16) % 5) * 9000)
    values = grey_as_rgb(np.where(GREY % 5 == 2, 255, ((GREY.astype(np.uint16) % 5) * 9000) >> 8))
    assert (seen(stored(deep, "PNG", transparency=18000)) == values).all()


def test_a_picture_that_is_transparent_all_over_is_refused():
    with pytest.raises(ValueError, match="transparent"):
        seen(stored(Image.new("RGBA", (40, 40), (200, 10, 10, 0)), "PNG"))


# ---- frames and formats ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_first_of_several_frames_is_seen_and_said(kind):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    decoded = decode(open_image(stored(frames[0], kind, save_all=True, append_images=frames[1:])), upright=False)
    assert decoded.notes == (FIRST_FRAME,)
    assert np.abs(np.asarray(decoded.image).astype(int) - [255, 0, 0]).max() <= 8
    assert decode(open_image(stored(frames[0], kind)), upright=False).notes == ()


FORMATS = [name for name in facts.IMAGE_FORMATS if name != "HEIF"]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_shows_the_same_picture(kind):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind in ("JPEG", "AVIF") else {}
    assert np.abs(seen(stored(Image.fromarray(SMOOTH), kind, **options)).astype(int) - SMOOTH).mean() < 6


def test_other_formats_are_refused_whatever_they_are_called(tmp_path):
    (tmp_path / "a.jpg").write_bytes(stored(Image.fromarray(COLOUR), "PPM").getvalue())
    with pytest.raises(ValueError, match=r"a\.jpg' is not a JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC file"):
        open_image(tmp_path / "a.jpg")


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)


def test_heic_is_read_or_names_what_reads_it():
    try:
        import pillow_heif
    except ModuleNotFoundError:
        with pytest.raises(ValueError, match="pip install pillow-heif"):
            open_image(io.BytesIO(HEIC))
    else:
        file = io.BytesIO()
        pillow_heif.from_pillow(Image.fromarray(SMOOTH)).save(file, quality=95)
        assert np.abs(seen(io.BytesIO(file.getvalue())).astype(int) - SMOOTH).mean() < 6


def test_one_answer_on_formats_everywhere(tmp_path):
    """Folder, file, bytes, service and page accept and refuse the same formats."""
    from saiqa.service.intake import Limits, open_picture

    kinds = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".gif": "GIF", ".avif": "AVIF"}
    for suffix, kind in kinds.items():
        (tmp_path / f"a{suffix}").write_bytes(stored(Image.fromarray(SMOOTH), kind).getvalue())
    (tmp_path / "a.heic").write_bytes(HEIC)
    (tmp_path / "a.psd").write_bytes(b"8BPS")
    scorer = Scorer(SMALL_BUNDLE, device="cpu", data_root=NO_ANNOTATIONS)
    ran = run_command(
        *("score_images.py", tmp_path, "--model_path", SMALL_BUNDLE, "--data_root", NO_ANNOTATIONS, "--device", "cpu"), "--json"
    )
    assert "1 .psd" in ran.err and len(ran.json["images"]) == len(kinds) + 1
    by_folder = {Path(line["images"][0]).suffix: line for line in ran.json["images"]}
    for suffix in (*kinds, ".heic"):
        data = (tmp_path / f"a{suffix}").read_bytes()
        by_file, by_bytes = scorer.score([tmp_path / f"a{suffix}", data])
        picture = open_picture("a", data, Limits(10**6, 10, 10**6))
        failed = {bool(by_file.error), bool(by_bytes.error), picture.error is not None, "error" in by_folder[suffix]}
        assert failed == {suffix not in kinds}
        assert by_file.scores == by_bytes.scores == by_folder[suffix]["scores"]
    for text in (REPOSITORY / "docs/score-pictures.md", TOOLS / "saiqa/service/page/index.html"):
        assert facts.IMAGE_FORMATS_TEXT in text.read_text(encoding="utf-8")


# ---- orientation -----------------------------------------------------------------------------------------------------

TURNED = {1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 6: np.rot90, 8: lambda x: np.rot90(x, 3)}
TURNED |= {5: lambda x: x.transpose(1, 0, 2), 7: lambda x: np.rot90(x, 2).transpose(1, 0, 2)}


def photograph(orientation: int, kind: str = "PNG", values: np.ndarray = COLOUR) -> io.BytesIO:
    """A picture as a rotated camera stores it: turned, with a tag that says how to turn it back."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    return stored(Image.fromarray(np.ascontiguousarray(TURNED[orientation](values))), kind, exif=exif, **options)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", sorted(TURNED))
def test_photographs_stand_upright(orientation, kind):
    file = photograph(orientation, kind)
    assert (seen(file, upright=True) == COLOUR).all()
    always = kind == "TIFF"  # Pillow always turns these, and so does the release
    assert (seen(file) == (COLOUR if always else TURNED[orientation](COLOUR))).all()
    for upright in (True, False):
        assert size_of(open_image(file), upright) == seen(file, upright).shape[:2]


def test_broken_metadata_costs_no_picture():
    file = stored(Image.fromarray(SMOOTH), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12\0\x03\0")
    assert seen(file, upright=True).shape == SMOOTH.shape


def test_engines_turn_a_photograph_as_they_are_told(tmp_path):
    wide = np.asarray(Image.fromarray(COLOUR).resize((640, 448), 3))
    (tmp_path / "lying.png").write_bytes(photograph(6, values=wide).getvalue())
    Image.fromarray(wide).save(tmp_path / "upright.png")
    Image.fromarray(np.rot90(wide)).save(tmp_path / "turned.png")
    grids, ratings = [], []
    for upright in (True, False):
        engine = load_engine("prefill", SMALL_BUNDLE, device="cpu", upright=upright)
        assert engine.describe()["upright"] is upright
        names = ("lying", "upright" if upright else "turned")
        asked = [Request(tmp_path / f"{n}.png", facts.query("layout"), facts.answer_prefix("layout")) for n in names]
        lying, plain = engine.rate(asked)
        assert isinstance(lying, Rating) and lying.logprobs == pytest.approx(plain.logprobs, abs=1e-6)
        ratings.append(lying.logprobs)
        grids.append(engine.patches(engine.rows(asked[:1])[0])[1].tolist())
    assert grids == [[[1, 28, 40]], [[1, 40, 28]]] and ratings[0] != ratings[1]


@pytest.mark.slow
def test_the_commands_turn_photographs_and_say_so(tmp_path, make_data_root):
    """score_images.py turns photographs upright, infer.py does not, as in the release; --exif decides, and it is recorded."""
    wide = np.asarray(Image.fromarray(COLOUR).resize((640, 448), 3))
    root = make_data_root(["lighting"], ids=["lying", "upright", "turned"], mos=["1", "2", "3"])
    root.image("lighting", "lying").write_bytes(photograph(6, values=wide).getvalue())
    Image.fromarray(wide).save(root.image("lighting", "upright"))
    Image.fromarray(np.rot90(wide)).save(root.image("lighting", "turned"))
    images = [root.image("lighting", name) for name in root.ids]
    model = ["--model_path", SMALL_BUNDLE, "--device", "cpu"]
    for flags, twin in ((["--exif", "off"], "turned"), ([], "upright")):
        ran = run_command("score_images.py", *images, *model, "--data_root", NO_ANNOTATIONS, *flags, "--json")
        scores = {Path(line["images"][0]).stem: line["scores"] for line in ran.json["images"]}
        assert scores["lying"] == pytest.approx(scores[twin], abs=1e-6)
    for flags, twin in (([], "turned"), (["--exif", "on"], "upright")):
        ran = run_command("infer.py", *root.flags, "--dimension", "lighting", "--mode", "infer", *flags)
        assert ran.code == 0, ran.err
        logits = {Path(line["images"][0]).stem: line["logits"] for line in read_jsonl(root.ratings("lighting"))}
        assert logits["lying"] == pytest.approx(logits[twin], abs=1e-5)
        record = root.ratings("lighting").with_suffix(".run.json").read_text()
        assert f'"upright": {"true" if flags else "false"}' in record
    ran = run_command("infer.py", *root.flags, "--dimension", "lighting", "--mode", "infer", "--exif", "off", "--resume")
    assert ran.code == 2 and "upright was True, is False" in ran.err


def test_what_was_decided_about_pictures_is_said(tmp_path):
    image = Image.fromarray(np.dstack([COLOUR, ALPHA]))
    image.save(tmp_path / "clear.png")
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    write_jsonl(tmp_path / "list.jsonl", [{"image": "clear.png"}, {"image": "moving.gif"}])
    flags = ["--model_path", SMALL_BUNDLE, "--data_root", NO_ANNOTATIONS, "--device", "cpu", "--json"]
    ran = run_command("score_images.py", tmp_path / "list.jsonl", *flags)
    assert f"of 1 images {OVER_WHITE}" in ran.err and f"of 1 images {FIRST_FRAME}" in ran.err
    assert [line["notes"] for line in ran.json["images"]] == [[OVER_WHITE], [FIRST_FRAME]]


# ---- incomplete JPEGs ------------------------------------------------------------------------------------------------


def as_jpeg(size: tuple[int, int] = (200, 160), **options) -> bytes:
    noise = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", **options)
    return file.getvalue()


SEQUENTIAL = ({}, {"subsampling": 0}, {"quality": 20}, {"restart_marker_rows": 1}, {"optimize": True})


@pytest.mark.parametrize("options", SEQUENTIAL, ids=str)
@pytest.mark.parametrize("share", (0.05, 0.3, 0.6, 0.95))
def test_a_jpeg_cut_and_closed_with_an_end_marker_is_refused(options, share):
    whole = as_jpeg(**options)
    assert not decode(open_image(io.BytesIO(whole)), upright=True).notes
    data = whole.rfind(b"\xff\xda") + 14
    cut = whole[: data + int((len(whole) - data) * share)].rstrip(b"\xff") + b"\xff\xd9"
    with pytest.raises(ValueError, match="it was cut"):
        decode(open_image(io.BytesIO(cut)), upright=True)


def test_a_progressive_jpeg_that_lacks_scans_is_refused():
    whole = as_jpeg(progressive=True)
    assert decode(open_image(io.BytesIO(whole)), upright=True).image.size == (200, 160)
    scans = [place for place in range(len(whole)) if whole.startswith(b"\xff\xda", place)]
    for place in scans[1:]:
        with pytest.raises(ValueError, match="it was cut"):
            decode(open_image(io.BytesIO(whole[:place] + b"\xff\xd9")), upright=True)


@pytest.mark.parametrize("colour", ("white", "black", "red"))
def test_a_whole_jpeg_that_ends_flat_is_scored(colour):
    for options in (*SEQUENTIAL, {"progressive": True}):
        file = io.BytesIO()
        Image.new("RGB", (300, 200), colour).save(file, "JPEG", **options)
        assert decode(open_image(io.BytesIO(file.getvalue())), upright=True).image.size == (300, 200)


def test_a_jpeg_of_thousands_of_scans_is_refused_at_once():
    whole = as_jpeg((2000, 2000), progressive=True)
    place = whole.rfind(b"\xff\xda")
    many = whole[:-2] + whole[place:-2][:20] * 3000 + b"\xff\xd9"
    started = time.monotonic()
    with pytest.raises(ValueError, match="more than 200 scans"):
        decode(open_image(io.BytesIO(many)), upright=True)
    assert time.monotonic() - started < 1

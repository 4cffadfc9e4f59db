"""Folders of picture files: finding them, decoding them, fitting them to a system's image size.

A file that cannot be used is skipped and named: one in a hundred thousand must not cost a day.
"""

import contextlib
import mmap
import os
import threading
import unicodedata
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from shared.files.errors import InputError, one_line, printable
from shared.interface import Array
from shared.spec import SystemSpec

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
MAXIMUM_PIXELS = 64_000_000
"""Largest picture that is decoded, in pixels; also the largest intermediate result of a resize."""
LARGE_PIXELS = 16_000_000
"""Larger pictures are decoded one at a time, for one of the largest takes a gigabyte."""
MAXIMUM_SCANS = 100  # most scans of a JPEG, as libtiff allows them; progressive ones have ten or so
GIBIBYTE = 2**30
MAXIMUM_BYTES = 4 * GIBIBYTE
"""Largest data set that is held in memory, in bytes; also the most that a file may unpack to."""

# Pillow chooses a decoder by content, not by suffix. Only these: EPS, say, would run Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_ONE_LARGE_PICTURE = threading.Lock()
_START_OF_SCAN = b"\xff\xda"  # nowhere else, for a 0xff among the pixels is followed by 0
_CHUNK = 32  # images per task of the thread pool: small, so that Ctrl-C is obeyed soon


def check_memory(source: str | Path, what: str, size: int) -> None:
    """Raise InputError for more bytes than memory may hold; `what` the source holds, in words."""
    if size > MAXIMUM_BYTES:
        most = f"expected at most {MAXIMUM_BYTES / GIBIBYTE:.0f} GiB"
        raise InputError(f"{source} {what}, {size / GIBIBYTE:.1f} GiB; {most}")


def find_files(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the files below `folder` in a fixed order, and "path: reason" of folders unread."""
    errors: list[OSError] = []
    visited: set[str] = set()
    files: list[Path] = []
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=errors.append):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        # Sorted while walking, for the order decides which of two links to a folder counts.
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=_order)
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    skipped = [f"{printable(error.filename)}: {error.strerror}" for error in errors]
    return sorted(files, key=lambda path: _order(path.relative_to(folder).as_posix())), skipped


def _order(name: str) -> tuple[str, str]:
    # Code points, not the locale's alphabet; NFC because macOS hands names back decomposed.
    return unicodedata.normalize("NFC", name), name


def is_image_file(path: Path) -> bool:
    """Tell by the suffix, in either case, whether a file claims to be a picture."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def decode_files(paths: list[Path], spec: SystemSpec) -> tuple[Array, list[str]]:
    """Return uint8 [n, image_size, image_size, channels], and "path: reason" of those skipped."""
    images = np.empty((len(paths), *spec.image_shape), np.uint8)
    # Filters are the whole process's, so they are set here and not in the threads. What Pillow
    # warns about (odd metadata, size) is either harmless or dealt with below.
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        warnings.simplefilter("ignore", RuntimeWarning)
        reasons = in_threads(len(paths), lambda i: _decode_into(paths[i], spec, images[i]))
    skipped = [f"{printable(p)}: {r}" for p, r in zip(paths, reasons, strict=True) if r]
    return images[[reason is None for reason in reasons]] if skipped else images, skipped


def describe_first(paths: list[Path], spec: SystemSpec) -> str:
    """Return what becomes of the first picture that can be opened, "" for none."""
    for path in filter(Path.is_file, paths):
        with (
            warnings.catch_warnings(action="ignore"),  # of its size, which `_resized` refuses
            contextlib.suppress(Exception),
            Image.open(path, formats=_FORMATS) as image,
        ):
            channels = 1 if image.mode in ("1", "L", "LA", "I", "I;16", "F") else 3
            fit = describe_fit(image.width, image.height, channels, spec)
            return f"{fit} (as the first, {printable(path.name)})"
    return ""


def describe_fit(width: int, height: int, channels: int, spec: SystemSpec) -> str:
    """Return what becomes of an image: "96x72 colour → 64x64 colour, cropped to the centre"."""
    found, made = ("grey" if c == 1 else "colour" for c in (channels, spec.channels))
    crop = "" if width == height else ", cropped to the centre"
    return f"{width}x{height} {found} → {spec.image_size}x{spec.image_size} {made}{crop}"


def in_threads(count: int, work: Callable[[int], str | None]) -> list[str | None]:
    """Return `work(0)` to `work(count - 1)`, by 2 to 8 threads; Pillow works outside the GIL."""
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    with ThreadPoolExecutor(min(8, max(2, os.cpu_count() or 2))) as pool:
        done = pool.map(lambda chunk: [work(index) for index in chunk], chunks)
        return [result for results in done for result in results]


def fit_pixels(pixels: Array, spec: SystemSpec) -> Array:
    """Fit uint8 [height, width, 1 or 3] to the spec; grey is luma (ITU-R 601). InputError."""
    grey = pixels.shape[2] == 1
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if grey else pixels))
    if not grey and spec.channels == 1:
        image = image.convert("L")
    return np.broadcast_to(_as_array(resize_and_crop(image, spec.image_size)), spec.image_shape)


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Resize, cut a square out as torchvision's `Resize` and `CenterCrop`; InputError if large."""
    width, height = _resized(image.size, size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _resized(dimensions: tuple[int, int], size: int) -> tuple[int, int]:
    """Return (width, height) after the resize, or raise InputError for what cannot be resized."""
    width, height = dimensions
    found = f"{width}x{height} pixels"
    if width < 1 or height < 1:
        raise InputError(f"{found}; expected at least 1x1")
    if width * height > MAXIMUM_PIXELS:
        raise InputError(f"too large: {found}; expected at most {MAXIMUM_PIXELS:,} pixels")
    longer = int(size * max(width, height) / min(width, height))
    if longer * size > MAXIMUM_PIXELS:
        raise InputError(f"too narrow: {found}, {longer}x{size} when resized")
    return (size, longer) if width <= height else (longer, size)


def _decode_into(path: Path, spec: SystemSpec, slot: Array) -> str | None:
    """Write one file's image into `slot`; return None, or the reason why that is impossible."""
    if not path.is_file():  # a dangling link, or a pipe that would be waited for without end
        return "not a regular file"
    try:
        with Image.open(path, formats=_FORMATS) as image:
            _resized(image.size, spec.image_size)  # refuses before anything is decoded
            if image.format == "JPEG" and _has_many_scans(path):
                return f"too many scans; expected a JPEG of at most {MAXIMUM_SCANS}"
            slot[:] = _as_array(_decode(image, spec))
    except InputError as error:
        return str(error)
    except Image.DecompressionBombError as error:
        return f"too large: {error}"
    except UnidentifiedImageError:
        return f"unreadable: expected the content of a {', '.join(_FORMATS)} file"
    except Exception as error:  # noqa: BLE001 - decoders raise OSError, SyntaxError, struct.error,
        # KeyError, ... as the damage has it; each means that this file has no image for us
        return one_line(f"unreadable: {str(error) or type(error).__name__}")
    return None


def _has_many_scans(path: Path) -> bool:
    # Each scan goes over all pixels, and may take as little as a byte for thousands of them.
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        place, count = content.find(_START_OF_SCAN), 0
        while place >= 0 and count <= MAXIMUM_SCANS:
            place, count = content.find(_START_OF_SCAN, place + 1), count + 1
    return count > MAXIMUM_SCANS


def _decode(image: Image.Image, spec: SystemSpec) -> Image.Image:
    """Return an opened picture as L or RGB, the right way up, at the spec's size."""
    # A large JPEG is decoded at 1/2, 1/4 or 1/8 of its size: each block's low frequencies, which
    # is a proper low-pass. At least twice the final size is left, so that the antialiased resize
    # still shapes the result.
    image.draft(None, (2 * spec.image_size, 2 * spec.image_size))
    is_large = image.width * image.height > LARGE_PIXELS
    with _ONE_LARGE_PICTURE if is_large else contextlib.nullcontext():
        # Loaded first: Pillow itself turns a TIFF while loading, and then drops the tag.
        image.load()
        try:
            ImageOps.exif_transpose(image, in_place=True)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - broken EXIF raises anything; the pixels are good
            pass
        pixels = _in_eight_bits(image, "L" if spec.channels == 1 else "RGB")
        return resize_and_crop(pixels, spec.image_size)


def _in_eight_bits(image: Image.Image, mode: str) -> Image.Image:
    """Convert any mode to `mode` (L or RGB); what is transparent becomes white."""
    # Pillow opens 16-bit PGM, and before version 11.3 some 16-bit PNG, as mode I.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        pixels = (np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535
        return Image.fromarray(pixels.astype(np.uint8)).convert(mode)
    if image.mode in ("I", "F"):
        raise InputError("32-bit pixels have no fixed range; expected 8 or 16 bits")
    if image.has_transparency_data:
        # Dropping alpha would show what lies hidden under it, often black or noise.
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    return image.convert(mode)


def _as_array(image: Image.Image) -> Array:
    return np.asarray(image).reshape(image.height, image.width, -1)

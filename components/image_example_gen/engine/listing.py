"""Finding the images, their classes and their splits in a folder."""

import functools
import hashlib
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass, field, fields
from pathlib import Path

from components.image_example_gen.engine.quarantine import Quarantined, enumerated, printable
from trainer_module.errors import UserError
from trainer_module.features import TEST_SPLIT, TRAIN_SPLIT, VALIDATION_SPLIT

_READABLE = ".jpg .jpeg .jpe .jfif .png .apng .gif .bmp .dib .tif .tiff .webp .avif .pbm .pgm .ppm .pnm .jp2 .j2k .jpx"
# Other formats that people keep photos in: such files are quarantined, so that they do not go unnoticed.
_OTHER = ".heic .heif .jxl .ico .icns .tga .psd .xcf .svg .eps .exr .hdr .raw .dng .cr2 .cr3 .nef .arw .orf .rw2"
IMAGE_EXTENSIONS = tuple(f"{_READABLE} {_OTHER}".split())

# What Windows, macOS, file systems and network storage put beside a user's own folders.
_SYSTEM_NAMES = frozenset(
    {
        "thumbs.db",
        "desktop.ini",
        "$recycle.bin",
        "system volume information",
        "__macosx",
        "lost+found",
        "@eadir",
        "@recycle",
        "#recycle",
        "#snapshot",
    }
)
_SPLIT_OF_FOLDER = {
    "train": TRAIN_SPLIT,
    "validation": VALIDATION_SPLIT,
    "valid": VALIDATION_SPLIT,
    "val": VALIDATION_SPLIT,
    "test": TEST_SPLIT,
}
# Names of folders that are no splits here, but probably were meant as such: training_set, seg_test, val2017, dev.
# Behind a space such a word has its everyday meaning: steam train.
_LIKE_A_SPLIT = re.compile(
    r"(.*[_-])?(train|trainval|test|val|valid|validation|eval|evaluation|dev|hold[_\W]?out)(ing)?s?"
    r"([_\W]?(data|sets?|images|photos))?\d*([_\W].*)?"
)
# Of what programs put into hidden folders, and of what is thrown away, not all is text: beginnings of their names.
_USUALLY_HIDDEN = (
    *(".git", ".hg", ".svn", ".dvc", ".cache", ".tmp", ".ipynb_checkpoints", ".thumb", ".@__thumb", ".picasa"),
    *(".trash", ".appledouble", ".snapshot", ".stversions", ".sync", ".dropbox"),
)

_HIDDEN = "hidden file or folder"
_SYSTEM = "system file or folder"
_NO_IMAGE = "name without an image extension"
_NO_CLASS = "lies in no class folder"

_LAYOUT = "the data folder must hold one folder of images per class"


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file that is to be read.

    Attributes:
        path: path relative to the data folder, separated by "/"; bytes that are no UTF-8 are kept as surrogates.
        class_name: name of the class folder, in Unicode's composed form (macOS hands out the decomposed one).
        split: the split whose folder the file lies in, or None where a hash decides.
        size: bytes.
        mtime_ns: time of the last change, nanoseconds since the epoch.
        readable: False without permission to read it. Such a file has its place among classes and splits all the same,
            so that these do not depend on permissions.
    """

    path: str
    class_name: str
    split: str | None
    size: int
    mtime_ns: int
    readable: bool = True


@dataclass(frozen=True)
class Overview:
    """What was seen in a data folder, without its files: those of a large folder take much memory.

    Attributes:
        root: absolute path of the data folder.
        fingerprint: hex digest that changes whenever a file is added, removed, renamed, written, or made readable. It
            covers relative names, sizes and times of change, not contents: reading those would cost as much as ingest.
        classes: names of the classes.
        quarantined: files that carry an image's extension but are not to be read, ordered by the bytes of their paths.
        ignored: number of other files and folders passed over, by reason.
        empty_classes: names of the class folders without a file to read.
        hidden_classes: printable names of the hidden folders with images that lie where class folders do, without those
            of well-known programs.
        shared_folders: names of the folders with images that every class folder holds; where there are some, they
            rather than the folders above them may be meant as classes.
        splits_as_classes: names of the class folders that look as if splits were meant; empty if it is but one.
    """

    root: Path
    fingerprint: str
    classes: tuple[str, ...]
    quarantined: tuple[Quarantined, ...]
    ignored: dict[str, int]
    empty_classes: tuple[str, ...]
    hidden_classes: tuple[str, ...]
    shared_folders: tuple[str, ...]
    splits_as_classes: tuple[str, ...]


@dataclass(frozen=True)
class Listing(Overview):
    """Everything that was seen in a data folder.

    Attributes:
        files: the files to read, ordered by the bytes of their paths.
    """

    files: tuple[ImageFile, ...]

    def overview(self) -> Overview:
        """Returns all but the files."""
        return Overview(**{each.name: getattr(self, each.name) for each in fields(Overview)})


@dataclass
class _Scan:
    """Raw findings of a walk: relative paths, not yet sorted into classes.

    Those of files come with size, time of change and whether they may be read.
    """

    folders: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    files: list[tuple[str, int, int, bool]] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def list_images(root: str | os.PathLike[str]) -> Listing:
    """Lists the images of a class-per-folder tree, with or without split folders above the classes.

    A tree has split folders if one of its top folders with images is `train` and all of them are `train`,
    `validation` (also `val`, `valid`) or `test`, in upper or lower case. With others beside them these would be
    classes, which nobody means where several of them hold folders of the same names. Folders inside a class folder
    belong to that class.
    Links to folders, and links to files outside of the tree, are quarantined and not followed.

    Args:
        root: the data folder, on a local or mounted file system.

    Returns:
        The files in an order that does not depend on the file system, and what was passed over.

    Raises:
        UserError: the folder cannot be read, does not hold images of at least two classes, or has other folders with
            images beside what look like splits.
    """
    folder = _resolve(root)
    scan = _scan(folder)
    depth = 2 if _has_split_folders(scan, folder) else 1
    files, strays = [], []
    # Each name is looked at once, and held once.
    class_name = functools.cache(functools.partial(_class_name, root=folder))
    # Emptied on the way, as there may be millions.
    while scan.files:
        path, size, mtime_ns, readable = scan.files.pop()
        parts = path.split("/")
        if len(parts) <= depth:
            strays.append((path, _NO_CLASS))
            continue
        split = _SPLIT_OF_FOLDER[parts[0].casefold()] if depth == 2 else None
        files.append(ImageFile(path, class_name(parts[depth - 1]), split, size, mtime_ns, readable))
    files.sort(key=lambda file: os.fsencode(file.path))
    rejected = sorted(scan.rejected + strays, key=lambda item: os.fsencode(item[0]))
    classes = {file.class_name for file in files}
    folders = {class_name(path.split("/")[-1]) for path in scan.folders if path.count("/") == depth - 1}
    quarantined = tuple(Quarantined(path=printable(path), reason=reason) for path, reason in rejected)
    listing = Listing(
        root=folder,
        fingerprint=_fingerprint(files, quarantined),
        classes=tuple(sorted(classes)),
        files=tuple(files),
        quarantined=quarantined,
        ignored=dict(sorted(scan.ignored.items())),
        empty_classes=tuple(sorted(folders - classes)),
        hidden_classes=_hidden_classes(folder, (path for path in scan.hidden if path.count("/") == depth - 1)),
        shared_folders=_shared_folders(files, depth),
        splits_as_classes=_splits_as_classes(classes),
    )
    _check_classes(listing, classes, scan.folders, bool(strays))
    return listing


def _fingerprint(files: Iterable[ImageFile], quarantined: Iterable[Quarantined]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode(file.path) + f"\0{file.size}\0{file.mtime_ns}\0{file.readable:d}\0".encode())
    for item in quarantined:
        digest.update(f"{item.path}\0{item.reason}\0".encode())
    return digest.hexdigest()


def _resolve(root: str | os.PathLike[str]) -> Path:
    shown = printable(os.fspath(root))
    try:
        folder = Path(root).expanduser().resolve(strict=True)
    except FileNotFoundError:
        raise UserError(f"{shown}: no such folder; set data.path (--data) to the folder with your images") from None
    except (OSError, RuntimeError) as error:
        raise UserError(f"{shown}: cannot be opened ({_cause(error)}); check data.path (--data)") from error
    if not folder.is_dir():
        raise UserError(f"{shown}: is a file, not a folder; {_LAYOUT} (unpack an archive first)")
    return folder


def _scan(root: Path) -> _Scan:
    scan = _Scan()
    pending = [""]
    while pending:
        parent = pending.pop()
        try:
            with os.scandir(root / parent) as entries:
                for entry in entries:
                    path = f"{parent}/{entry.name}" if parent else entry.name
                    if _note(entry, path, root, scan):
                        scan.folders.append(path)
                        pending.append(path)
        except OSError as error:
            shown = printable(os.fspath(root / parent))
            raise UserError(f"{shown}: cannot be read ({_cause(error)}); give read access to it") from error
    return scan


def _note(entry: os.DirEntry[str], path: str, root: Path, scan: _Scan) -> bool:
    """Files one entry under what it is; returns True for a folder that is to be walked."""
    if entry.name.startswith("."):
        scan.ignored[_HIDDEN] += 1
        if entry.is_dir(follow_symlinks=False):
            scan.hidden.append(path)
    elif entry.name.casefold() in _SYSTEM_NAMES:
        scan.ignored[_SYSTEM] += 1
    elif entry.is_dir(follow_symlinks=False):
        return True
    elif entry.is_symlink() and (fault := _folder_fault(root / path)):
        scan.rejected.append((path, fault))
    elif not entry.name.lower().endswith(IMAGE_EXTENSIONS):
        scan.ignored[_NO_IMAGE] += 1
    elif entry.is_symlink() and (fault := _link_fault(root, path)):
        scan.rejected.append((path, fault))
    else:
        _note_file(entry, path, scan)
    return False


def _note_file(entry: os.DirEntry[str], path: str, scan: _Scan) -> None:
    try:
        status = entry.stat()
    except FileNotFoundError:
        scan.rejected.append((path, "vanished while the data folder was read; run again when its files are at rest"))
        return
    if stat.S_ISREG(status.st_mode):
        # Found here and not only on reading, so that the fingerprint changes as soon as access is given.
        readable = os.access(entry.path, os.R_OK, effective_ids=True)
        scan.files.append((path, status.st_size, status.st_mtime_ns, readable))
    else:
        scan.rejected.append((path, "a device, pipe or socket, not a regular file"))


def _folder_fault(link: Path) -> str | None:
    try:
        return "symbolic link to a folder, not followed" if link.is_dir() else None
    except OSError as error:
        # Perhaps to a folder of photos, which must not go unnoticed.
        return f"symbolic link that cannot be followed ({_cause(error)})"


def _link_fault(root: Path, path: str) -> str | None:
    try:
        target = (root / path).resolve(strict=True)
    except (OSError, RuntimeError):
        return "broken symbolic link"
    return None if target.is_relative_to(root) else "symbolic link that leaves the data folder"


def _has_split_folders(scan: _Scan, root: Path) -> bool:
    top = {path.partition("/")[0] for path, *_ in scan.files if "/" in path}
    splits = {name for name in top if name.casefold() in _SPLIT_OF_FOLDER}
    if "train" not in map(str.casefold, splits):
        return False
    strays = top - splits
    if strays and (shared := _in_several(splits, scan)):
        raise UserError(
            f"{printable(os.fspath(root))}: {enumerated(splits)} look like splits, since they hold folders of the same "
            f"names ({enumerated(shared)}), but images lie in {enumerated(strays)} too; move that out of the data "
            f"folder, or, if {enumerated(splits)} are classes, rename them"
        )
    return not strays


def _in_several(tops: Set[str], scan: _Scan) -> list[str]:
    """Returns the names of the folders with images that lie below several of these top folders."""
    parts = (path.split("/", 2) for path, *_ in scan.files)
    below = {(each[0], each[1]) for each in parts if each[0] in tops and len(each) > 2}
    return [name for name, count in Counter(name for _, name in below).items() if count > 1]


def _class_name(name: str, root: Path) -> str:
    if printable(name) != name or not name.strip() or name != name.strip():
        raise UserError(
            f"{printable(os.fspath(root))}: the class folder '{printable(name)}' has a name that cannot be a label (it "
            "must be UTF-8 without line breaks, control characters or spaces at the ends); rename it"
        )
    return unicodedata.normalize("NFC", name)


def _shared_folders(files: Iterable[ImageFile], depth: int) -> tuple[str, ...]:
    """Returns the names of the folders with images that lie directly below each of the class folders."""
    below: dict[str, set[str]] = {}
    for file in files:
        parts = file.path.split("/")
        inside = below.setdefault("/".join(parts[:depth]), set())
        if len(parts) > depth + 1:
            inside.add(parts[depth])
    return tuple(sorted(printable(name) for name in set.intersection(*below.values()))) if below else ()


def _hidden_classes(root: Path, hidden: Iterable[str]) -> tuple[str, ...]:
    unusual = [path for path in hidden if not path.split("/")[-1].casefold().startswith(_USUALLY_HIDDEN)]
    return tuple(sorted(printable(path) for path in unusual if _holds_images(root / path)))


def _holds_images(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(each.name.lower().endswith(IMAGE_EXTENSIONS) and each.is_file() for each in entries)
    except OSError:
        # Nobody has said that it is of any concern.
        return False


def _splits_as_classes(classes: Iterable[str]) -> tuple[str, ...]:
    found = tuple(sorted(name for name in classes if _LIKE_A_SPLIT.fullmatch(name.casefold())))
    return found if len(found) > 1 else ()


def _check_classes(listing: Listing, classes: set[str], folders: list[str], strays: bool) -> None:
    root = printable(os.fspath(listing.root))
    if not classes:
        if strays:
            raise UserError(f"{root}: images lie directly in it, in no class folder; {_LAYOUT}")
        passed_over = [f"{count} x {reason}" for reason, count in listing.ignored.items()]
        passed_over += [f"{item.path}: {item.reason}" for item in listing.quarantined[:3]]
        detail = f" (passed over: {', '.join(passed_over)})" if passed_over else ""
        raise UserError(f"{root}: no images found{detail}; {_LAYOUT}")
    if len(classes) == 1:
        name = next(iter(classes))
        inside = sum(1 for folder in folders if folder.startswith(f"{name}/") and folder.count("/") == 1)
        hint = (
            f"; it holds {inside} folders: if those are the classes, set data.path to {root}/{name}" if inside else ""
        )
        if listing.hidden_classes:
            hint += f"; hidden folders do not count: {enumerated(listing.hidden_classes)}"
        raise UserError(f"{root}: only one class with images ('{name}'), but a classifier needs two or more{hint}")


def _cause(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)

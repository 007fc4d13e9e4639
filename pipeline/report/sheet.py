"""A contact sheet: the first pictures of a run's page on one small image, for places that cannot show the page."""

from __future__ import annotations

import base64
import re
from itertools import islice

COLUMNS, ROWS = 4, 3
_CELL = (160, 120)
"""Width and height of a picture on the sheet."""
_PICTURE = re.compile(r'src="data:image/(?:jpeg|png|webp);base64,([A-Za-z0-9+/=]+)"')
_QUALITY = 80


def contact_sheet(page: str) -> bytes | None:
    """A JPEG of the first pictures of a page (HTML), up to 12; ``None`` where it shows none."""
    import cv2
    import numpy as np

    found = []
    for match in islice(_PICTURE.finditer(page), COLUMNS * ROWS):
        content = np.frombuffer(base64.b64decode(match.group(1)), np.uint8)
        picture = cv2.imdecode(content, cv2.IMREAD_COLOR)
        if picture is not None:
            found.append(picture)
    if not found:
        return None
    width, height = _CELL
    columns = min(COLUMNS, len(found))
    sheet = np.full((-(-len(found) // columns) * height, columns * width, 3), 32, np.uint8)
    for index, picture in enumerate(found):
        scale = min(width / picture.shape[1], height / picture.shape[0])
        w, h = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
        small = cv2.resize(picture, (w, h), interpolation=cv2.INTER_AREA)
        top = index // columns * height + (height - h) // 2
        left = index % columns * width + (width - w) // 2
        sheet[top : top + h, left : left + w] = small
    written, content = cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return bytes(content) if written else None

"""Draws demo/rooms.jpg, the README's picture: test rooms of each dimension with their MOS and predicted score.

    python tools/infer.py --demo && python demo/build/contact_sheet.py
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2] / "tools"))

from PIL import Image, ImageDraw, ImageFont

import prompt_configs as facts
from saiqa import bundle, records

COLUMNS = 5
CAPTION, MARGIN = 26, 6
WIDTH, HEIGHT = 256, 192


def main():
    roots = bundle.roots(demo=True)
    cell_width, cell_height = WIDTH + MARGIN, HEIGHT + CAPTION
    sheet = Image.new("RGB", (COLUMNS * cell_width + MARGIN, len(facts.DIMENSIONS) * cell_height + MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for line, dimension in enumerate(facts.DIMENSIONS):
        name = facts.result_name(dimension, facts.RECOMMENDED, facts.tuned_model(), ".csv")
        for column, row in enumerate(_spread(records.read_csv(roots.results / name).rows, dimension)):
            x, y = MARGIN + column * cell_width, MARGIN + line * cell_height
            folder = roots.data / facts.IMAGES_FOLDER.format(dimension=dimension)
            sheet.paste(Image.open(folder / f"{row['id']}.jpg"), (x, y))
            mos, predicted = float(row[f"{dimension}_score_mos"]), float(row["score_pred"])
            caption = f"{dimension}: MOS {mos:.1f}, score {predicted:.1f}"
            draw.text((x + 2, y + HEIGHT + 3), caption, fill="black", font=font)
    sheet.save(HERE.parents[1] / "rooms.jpg", quality=85, optimize=True)


def _spread(rows, dimension):
    """Rows evenly spread over the mean opinion score, best first; chosen without a look at the prediction."""
    ranked = sorted(rows, key=lambda row: (-float(row[f"{dimension}_score_mos"]), row["id"]))
    return [ranked[round(i * (len(ranked) - 1) / (COLUMNS - 1))] for i in range(COLUMNS)]


if __name__ == "__main__":
    main()

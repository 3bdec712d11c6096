"""One self-contained HTML page that reads like a lab report.

Contents: the blocks a page is made of (`Page`, `Section`, `Text`, `Bullets`, `Notice`, `Table`,
`FigureBlock`, `Facts`, `Paste`, `Browser`), `render` (to a string) and `write` (to a file).
"""

from tamperlens.base.boundary import guard
from tamperlens.base.files import write_csv
from tamperlens.report.blocks import Block as Block
from tamperlens.report.blocks import Browser as Browser
from tamperlens.report.blocks import Bullets as Bullets
from tamperlens.report.blocks import Facts as Facts
from tamperlens.report.blocks import FigureBlock as FigureBlock
from tamperlens.report.blocks import Notice as Notice
from tamperlens.report.blocks import Page as Page
from tamperlens.report.blocks import Paste as Paste
from tamperlens.report.blocks import Section as Section
from tamperlens.report.blocks import Table as Table
from tamperlens.report.blocks import Text as Text
from tamperlens.report.page import check_drawing as check_drawing
from tamperlens.report.page import render as render
from tamperlens.report.page import write as write

__all__ = [
    "Block",
    "Browser",
    "Bullets",
    "Facts",
    "FigureBlock",
    "Notice",
    "Page",
    "Paste",
    "Section",
    "Table",
    "Text",
    "check_drawing",
    "render",
    "write",
    "write_csv",
]

guard(globals(), __all__)

"""A look before the long run: `examine` takes one step and one tile, `print_page` tells."""

from .examine import examine as examine
from .page import print_page as print_page

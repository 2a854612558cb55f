"""Random problems against literal loops in extended precision: ``python -m tests.fuzz --minutes 5 --seed 0``.

``trees`` are random expressions, written out as the source of a cell and evaluated by an evaluator of their own;
``cells`` puts mixings around them, ``problems`` draws data, ``oracle`` walks the loop in ``numpy.longdouble``,
``judge`` says what must hold, and ``kinds`` lists what is tried. Nothing here evaluates anything with the library
under test.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # what it shares with the tests, also when it is run from elsewhere

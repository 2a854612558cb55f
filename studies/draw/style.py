"""How solvers are drawn, as plots of the library draw them: studies take it from here."""

from recsolve.plot.style import STYLES as STYLES
from recsolve.plot.style import house_style as house_style
from recsolve.plot.style import integer_ticks as integer_ticks
from recsolve.plot.style import line_arguments as line_arguments
from recsolve.plot.style import plain_ticks as plain_ticks
from recsolve.plot.style import style_of as style_of

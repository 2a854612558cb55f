"""What a reader would miss in a figure: labels, whole iterations, distinct entries of legends, text inside borders."""

import re

from matplotlib.backends.backend_agg import FigureCanvasAgg

COUNTS = re.compile(r"\b(iterations?|sweeps?)\b")
BORDER = 0.03  # inches that text may reach over the border: its box is a little larger than its letters


def faults(figure):
    """Return what is wrong with a figure that has been laid out, in words."""
    found = [fault for axes in figure.axes if axes.get_visible() for fault in _of_axes(figure, axes)]
    for legend in [*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))]:
        found += _of_legend(legend)
    box, (width, height) = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer()), figure.get_size_inches()
    if min(box.x0, box.y0, width - box.x1, height - box.y1) < -BORDER:
        found.append(f"something is cut at the border: {box.extents.round(2)} of {width:.2f} x {height:.2f}")
    return found


def _of_axes(figure, axes):
    """Yield the faults of a panel. A label may stand at the edge of a row or column of panels, or of the figure."""
    title = axes.get_title()
    for side in "xy":
        axis, whole = getattr(axes, f"{side}axis"), getattr(figure, f"_sup{side}label")
        siblings = getattr(axes, f"get_shared_{side}_axes")().get_siblings(axes)
        labels = [getattr(other, f"get_{side}label")() for other in siblings]
        label = next(filter(None, labels), whole.get_text() if whole else "")
        if hasattr(axes, "_colorbar"):
            if not any((axes.get_xlabel(), axes.get_ylabel())):
                yield "a bar of colours has no label"
            continue
        if not label:
            yield f"{title!r} has no label of {side}"
        if COUNTS.search(label) and "/" not in label:
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_majorticklocs() if low <= tick <= high]
            if not ticks or any(tick != round(tick) for tick in ticks):
                yield f"{title!r} counts {label!r} at {ticks}"
            odd = [text for text in (tick.get_text() for tick in axis.get_ticklabels()) if "10^" in text]
            if odd:
                yield f"{title!r} writes {label!r} as {odd}"


def _of_legend(legend):
    texts = [text.get_text() for text in legend.get_texts()]
    if len(texts) != len(set(texts)):
        yield f"a legend names {texts}"
    looks = [_look(handle) for handle in legend.legend_handles if hasattr(handle, "get_marker")]
    shown = [look for look in looks if look[1:3] != ("None", "None")]
    if len(shown) != len(set(shown)):
        yield f"entries of a legend look alike: {texts}"


def _look(line):
    return line.get_color(), str(line.get_linestyle()), str(line.get_marker()), str(line.get_markerfacecolor())

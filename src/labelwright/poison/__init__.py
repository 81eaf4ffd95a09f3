"""Defence against planted labels: tells attacks from honest noise by their structure, names them, sets them apart.

:func:`inspect` looks at a whole data set, a :class:`Watch` at batch after batch, and :class:`Guarded` puts a watch into the loop.
"""

from labelwright.poison.alarm import Alarm
from labelwright.poison.guard import Guarded, SettlingBudget
from labelwright.poison.watch import Look, Watch, inspect
from labelwright.poison.window import Seen, seen

__all__ = ["Alarm", "Guarded", "Look", "Seen", "SettlingBudget", "Watch", "inspect", "seen"]

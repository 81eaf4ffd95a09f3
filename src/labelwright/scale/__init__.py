"""Many cores and machines through one seam: ``map`` a function over partitions, in this process, on processes or on Ray.

The same results to the bit whatever does the work: partitions do not depend on the number of workers, results come in their
order, and the linear algebra of a worker has one thread.
"""

from labelwright.scale.crew import Threads
from labelwright.scale.mapper import InProcess, Mapper, cores, tell
from labelwright.scale.on_ray import OnRay
from labelwright.scale.opening import checked, open_mapper, opened
from labelwright.scale.processes import Processes

__all__ = ["InProcess", "Mapper", "OnRay", "Processes", "Threads", "checked", "cores", "open_mapper", "opened", "tell"]

from .callbacks import StartMasking as StartMasking
from .epoch_tasks import EpochTasks as EpochTasks
from .loop import (
    fresh_callbacks as fresh_callbacks,
    train as train,
)
from .memory_callbacks import (
    InitialMemory as InitialMemory,
    MemoryUsage as MemoryUsage,
    MovingMemory as MovingMemory,
)

from .background import BackgroundDetector as BackgroundDetector
from .bag_pooling import BagPooling as BagPooling
from .instances import (
    InstanceFilter as InstanceFilter,
    InstanceStandardizer as InstanceStandardizer,
    InstanceTransformer as InstanceTransformer,
)
from .omics import GeneSelector as GeneSelector, LogCounts as LogCounts
from .tissue_mask import TissueMaskFilter as TissueMaskFilter

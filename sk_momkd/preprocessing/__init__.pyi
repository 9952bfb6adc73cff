from .background_detector import BackgroundDetector as BackgroundDetector
from .bag_pooling import BagPooling as BagPooling
from .expression_outliers import ExpressionClipper as ExpressionClipper
from .instance_filter import InstanceFilter as InstanceFilter
from .instance_standardizer import InstanceStandardizer as InstanceStandardizer
from .instance_transformer import InstanceTransformer as InstanceTransformer
from .omics import GeneSelector as GeneSelector, LogCounts as LogCounts
from .tissue_mask import TissueMaskFilter as TissueMaskFilter

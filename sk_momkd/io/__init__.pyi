from .cache import cache_bags as cache_bags
from .cohort import Cohort as Cohort, load_cohort as load_cohort
from .geojson import to_geojson as to_geojson
from .geometry import check_geometry as check_geometry
from .join_report import JoinReport as JoinReport
from .readers import SlideFile as SlideFile, read_bags as read_bags
from .tables import stamp_table as stamp_table
from .tcga import omics_by_patient as omics_by_patient, tissue_source_site as tissue_source_site
from .writers import slide_anndata as slide_anndata, write_trident as write_trident

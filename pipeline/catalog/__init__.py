"""The catalog: read strictly, checked whole, built into data sets that are ready to be worked on."""

from pipeline.catalog.align_models import Align
from pipeline.catalog.data_set import Catalog, DataSet
from pipeline.catalog.load import load_catalog
from pipeline.catalog.models import (
    Columns,
    CsvSource,
    Engine,
    FolderSource,
    JsonlSource,
    ManifestSource,
    ParquetSource,
    Source,
    Splits,
    TableSource,
)
from pipeline.catalog.schema import catalog_schema
from pipeline.catalog.train_models import Train

__all__ = [
    "Align",
    "Catalog",
    "Columns",
    "CsvSource",
    "DataSet",
    "Engine",
    "FolderSource",
    "JsonlSource",
    "ManifestSource",
    "ParquetSource",
    "Source",
    "Splits",
    "TableSource",
    "Train",
    "catalog_schema",
    "load_catalog",
]

"""Look at a folder of media and propose a catalog for it.

What is looked at: which files are media, by extension; which of them belong together, by name; a manifest (CSV, JSON
Lines or Parquet, in the folder or one level below) whose cells are paths of those files; what folders and columns are
called. Nothing is decided behind anyone's back: every guess is a line of the summary and a line of the catalog.

files     which files there are
folders   samples, labels and splits from names of files and folders
manifest  samples from a table; tables reads it, columns says what is what
source    what both give: a part of a catalog
features  which features are proposed
proposal  the whole, as YAML
"""

from pipeline.init.proposal import Proposal, propose, write

__all__ = ["Proposal", "propose", "write"]

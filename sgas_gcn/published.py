"""Published genotypes by name: `cri2-modelnet-4`, `random-modelnet-9`, `cri2-modelnet-best`, …

They come from the files of the SGAS authors (github.com/lightaime/sgas, MIT).
"""

from sgas.cells.published import Published

PUBLISHED = Published("sgas_gcn")
published_names, load_published = PUBLISHED.names, PUBLISHED.load

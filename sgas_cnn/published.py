"""Published genotypes by name: `cri1-cifar-3`, `cri2-imagenet-best`, `nasnet`, …

They come from the files of the SGAS authors (github.com/lightaime/sgas, MIT) and of DARTS
(github.com/quark0/darts, Apache 2.0).
"""

from sgas.cells.published import Published

PUBLISHED = Published("sgas_cnn")
published_names, load_published = PUBLISHED.names, PUBLISHED.load

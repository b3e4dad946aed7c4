import os
import pathlib

import idna

out = pathlib.Path(os.environ["MAYFLY_OUTPUT_DIR"])
(out / "name.txt").write_text(idna.encode("bücher.example").decode())

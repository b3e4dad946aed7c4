import os

os.chmod(".", 0o755)
open("results.csv", "a").write("1\n")

import os

for site in os.environ["SITES"].split(","):
    with open(f"/out/{site}.txt", "w") as file:
        file.write(site)

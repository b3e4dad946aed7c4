import csv
import urllib.request

with urllib.request.urlopen("http://books.example/books.csv") as answer:
    rows = list(csv.DictReader(answer.read().decode().splitlines()))
with open("results.csv", "a", newline="") as file:
    csv.writer(file).writerows([row["title"], row["price"]] for row in rows)

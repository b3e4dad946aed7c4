import csv

with open("books.csv", "a", newline="") as file:
    csv.writer(file).writerow(["Sapiens", "54.23"])
with open("seen.txt", "a") as file:
    file.write("new\n")

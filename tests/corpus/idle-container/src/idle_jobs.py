import datetime

with open(f"./{datetime.date(2026, 11, 22)}.csv", "a") as file:
    file.write("1,engineer\n")

import csv
import json
import os
import urllib.request

with urllib.request.urlopen("http://selenium-hub:4444/wd/hub/status") as answer:
    status = json.load(answer)["value"]
print("ready:", status["ready"])
with open("/results/prices.csv", "w", newline="") as file:
    csv.writer(file).writerow(["ready", status["ready"]])

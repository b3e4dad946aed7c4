import csv
import json
import os
import urllib.request

if not os.environ["SHOP_PASSWORD"]:
    raise SystemExit("no password")
with urllib.request.urlopen(os.environ["SELENIUM_URL"] + "/status") as answer:
    status = json.load(answer)["value"]
with open("/data/quotes.csv", "w", newline="") as file:
    csv.writer(file).writerow([status["ready"], os.environ["TZ"]])

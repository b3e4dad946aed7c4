import json
import os, re
from seleniumwire import webdriver  # type: ignore[import-not-found]

import settings

print(json, os, re, webdriver, settings)

#!/bin/sh
echo scraped > /data/a.txt

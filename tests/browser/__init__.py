"""Tests of the browser's keeper and of the three kinds of browser, against real ones."""

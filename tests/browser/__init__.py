"""Tests of the browser's supervisor and of the three kinds of browser, against real ones."""

URL = "http://books.example"

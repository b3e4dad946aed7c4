print("nothing that is not in Python itself")

print("where is the job?")

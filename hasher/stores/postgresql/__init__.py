"""`postgresql://`: a table that many machines share, durable on the server's disk.

`location` reads the URL, `schema` makes and checks the table, `driver` has the statements that
store and find messages, `pool` hands out connections, and `connection` waits for their answers.
"""

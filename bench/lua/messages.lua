-- Reads of stored messages, and new messages of 100 bytes, one a request.
-- Arguments: a tag of 16 letters that no other run has, so that every message of this one is new;
-- the percentage of requests that read; a file with the digests to read, one a line.
require "figures"

local tag, reads
local gets, count, written = {}, 0, 0
local headers = { ["Content-Type"] = "application/json" }
local filler = string.rep("x", 100 - 16 - 10)

function init(args)
  tag, reads = args[1], tonumber(args[2])
  for digest in io.lines(args[3]) do
    gets[#gets + 1] = wrk.format("GET", "/messages/" .. digest)
  end
end

function request()
  count = count + 1
  if count * reads % 100 < reads then
    return gets[count % #gets + 1]
  end
  written = written + 1
  local body = string.format('{"message":"%s%010d%s"}', tag, written, filler)
  return wrk.format("POST", "/messages", headers, body)
end

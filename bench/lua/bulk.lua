-- New messages of 100 bytes, many a request, one a line.
-- Arguments: a tag of 16 letters that no other run has; a file, unused; how many messages a request
-- brings.
require "figures"

local tag
local ends, requests = {}, 0
local headers = { ["Content-Type"] = "application/x-ndjson" }

function init(args)
  tag = args[1]
  local filler = string.rep("x", 100 - 16 - 10 - 10)
  for line = 1, tonumber(args[3]) do
    ends[line] = string.format('%010d%s"}\n', line, filler)
  end
end

function request()
  requests = requests + 1
  local start = string.format('{"message":"%s%010d', tag, requests)
  return wrk.format("POST", "/messages", headers, start .. table.concat(ends, start))
end

-- Reads of stored messages, and new messages, one a request.
-- Arguments: a tag of 16 letters that no other run has, so that every message of this one is new;
-- a file with the digests to read, one a line; the percentage of requests that read; the bytes of
-- a message; and the header fields that a browser sends besides, or none.
require "figures"

local BROWSER = {
  ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
  ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
  ["Accept-Language"] = "en-GB,en;q=0.5",
  ["Accept-Encoding"] = "gzip, deflate, br, zstd",
  ["Connection"] = "keep-alive",
  ["Sec-Fetch-Dest"] = "empty",
  ["Sec-Fetch-Mode"] = "cors",
  ["Sec-Fetch-Site"] = "same-origin",
}

local tag, reads, filler
local gets, count, written = {}, 0, 0
local headers = {}

function init(args)
  tag, reads = args[1], tonumber(args[3])
  filler = string.rep("x", tonumber(args[4]) - 16 - 10)
  if args[5] == "browser" then headers = BROWSER end
  for digest in io.lines(args[2]) do
    gets[#gets + 1] = wrk.format("GET", "/messages/" .. digest, headers)
  end
  headers["Content-Type"] = "application/json"
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

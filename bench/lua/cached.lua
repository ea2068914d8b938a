-- Reads, of which some are of messages that a cache has, and the others of ones not asked for yet.
-- Arguments: a tag, unused; a file with HOT digests and behind them the others, one a line; the
-- percentage of reads of the first HOT.
require "figures"

local HOT = 1000
local share
local gets, hot, cold = {}, 0, HOT

function init(args)
  share = tonumber(args[3])
  for digest in io.lines(args[2]) do
    gets[#gets + 1] = wrk.format("GET", "/messages/" .. digest)
  end
end

function request()
  if (hot + cold - HOT) * share % 100 < share then
    hot = hot + 1
    return gets[hot % HOT + 1]
  end
  cold = cold + 1
  return gets[(cold - 1) % #gets + 1]
end

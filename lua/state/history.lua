-- Whether the partition may be served: it is open, none of its keys is gone, and its history is not behind what was
-- acknowledged (an older append-only file came back, a stale replica took over).
--
-- A sender tells the last transaction that it was told of. The same epoch with a smaller seq, or with another transaction
-- of that seq, is a loss; so is a smaller epoch. A greater one is a rebuild's, which counts anew.

local known_seq, is_behind = ARGV[12] + 0, false
if ARGV[11] ~= epoch then
  is_behind = ARGV[11] + 0 > epoch + 0
elseif known_seq >= seq then
  is_behind = known_seq > seq or ARGV[13] ~= head and ARGV[13] ~= '?' -- "?": an entry that nobody can read
elseif ARGV[14] == '1' then -- others may have gone on from an older history, beyond that seq
  local found = told_of(OUTBOX, known_seq)
  is_behind = found and found ~= ARGV[13] and ARGV[13] ~= '?' or false
end
local is_refused = ARGV[3] ~= 'repair' and (is_behind or fields[2] ~= 'open' or redis.call('EXISTS', unpack(KEYS)) < #KEYS)

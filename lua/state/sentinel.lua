-- Sentinels: Redis drops a hash or a set with its last member, so a key that is gone may be empty or lost (evicted, deleted
-- by hand). Each key of a partition therefore holds a member of the empty name from the beginning, and the outbox is at
-- least an empty stream, which Redis keeps: a key that is gone is lost. No reader meets them: no user_id and no id is empty,
-- lexical ranges begin behind them, and their time never comes.

local SENTINELS = 'hhhshsthhohhhhhh' -- by KEYS: h hash, s lexical set, t set by time, o outbox

local function plant_sentinel(number)
  local key, kind = KEYS[number], string.sub(SENTINELS, number, number)
  if kind == 'h' then redis.call('HSET', key, '', '') end
  if kind == 's' then redis.call('ZADD', key, '0', '') end
  if kind == 't' then redis.call('ZADD', key, '+inf', '') end
  if kind == 'o' and redis.call('EXISTS', key) == 0 then
    redis.call('XADD', key, '0-1', 'e', '')
    redis.call('XDEL', key, '0-1')
  end
end

-- In every key but meta, which is never empty.
local function plant_sentinels()
  for number = 2, #KEYS do plant_sentinel(number) end
end

-- The names of the keys that are gone, with blanks between.
local function names_of_gone()
  local names = {}
  for _, key in ipairs(KEYS) do
    if redis.call('EXISTS', key) == 0 then names[#names + 1] = string.match(key, '}:(.+)$') end
  end
  return table.concat(names, ' ')
end

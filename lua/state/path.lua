-- The levels of a path, and what they keep of rules: terms in RULES, what moves in COUNTERS (state/level.lua). Of levels that
-- were read, paths.terms and paths.counters have the texts: false where one has no rules, nil where nobody asked.

local LEVELS_MAX = 6

-- The levels of a path, the root's first: each part of it before a "/" that is not empty, and itself.
function paths.levels_of(user)
  local names, at = {}, 1
  while #names < LEVELS_MAX do
    local cut = string.find(user, '/', at, true)
    if cut ~= 1 then names[#names + 1] = sub(user, 1, (cut or 0) - 1) end
    if not cut then break end
    at = cut + 1
  end
  return names
end

-- Reads levels that this call has not read yet.
function paths.read(names)
  local unread = {}
  for _, name in ipairs(names) do
    if paths.terms[name] == nil then
      paths.terms[name], unread[#unread + 1] = false, name
    end
  end
  for first = 1, #unread, 1000 do -- unpack fails at about 8,000
    local last = math.min(first + 999, #unread)
    local terms, counters = redis.call('HMGET', paths.RULES, unpack(unread, first, last)),
      redis.call('HMGET', paths.COUNTERS, unpack(unread, first, last))
    for n = first, last do
      paths.terms[unread[n]], paths.counters[unread[n]] = terms[n - first + 1], counters[n - first + 1]
    end
  end
end

-- The levels of those paths, ahead of what the batch does. An account without a "/" says itself whether it has rules.
function paths.read_of(users, account_texts)
  local names = {}
  for _, user in ipairs(users) do
    if string.find(user, '/', 1, true) then
      for _, name in ipairs(paths.levels_of(user)) do names[#names + 1] = name end
    elseif string.find(match(account_texts[user] or '', '^%d+ %d+ %d+ %d+ %d+ %d+ (%S+)') or '', 'r', 1, true) then
      names[#names + 1] = user
    else
      paths.terms[user] = paths.terms[user] or false
    end
  end
  paths.read(names)
end

-- Whether a path is under rules of its own or of a level above it.
function paths.is_ruled(user)
  for _, name in ipairs(paths.levels_of(user)) do
    if paths.terms[name] == nil then paths.read({ name }) end
    if paths.terms[name] then return true end
  end
  return false
end

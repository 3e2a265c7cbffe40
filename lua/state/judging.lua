-- Judging: which rules of a path's levels refuse what is asked for. Nothing is changed here.
--
-- What is asked is a table: amount (units that would be charged or held), requests (how many it counts as), holds (how many it
-- opens), is_new (spending that a suspension refuses), hold and kept (of a commit: its hold, and how much of that is charged).
-- What refuses is a list of violations, each with `of`, the level: rule, of, id, window, limit, used, reserved, required,
-- resets, retry_ms, and by which they are put in order: class (1 a suspension, 2 answered with 402, 3 with 429) and room.

-- What a commit adds at a level beyond what it holds there: of a hold that the level does not count, all that is charged.
function levels.need(level, ask)
  return ask.amount + (ask.hold and not levels.counts(level, ask.hold) and ask.kept or 0)
end

function levels.room_of(level, b)
  return b.limit - (level[TOTALS[b.unit]] - b.base) - (b.unit == 'c' and level.reserved or 0)
end

local function judge_budget(level, b, ask, broken)
  local need = b.unit == 'r' and (ask.requests or 0) or levels.need(level, ask)
  local room = levels.room_of(level, b)
  if b.mode ~= 'e' or need <= room or b.unit == 'r' and need == 0 then return end
  broken[#broken + 1] = {
    class = 2, room = room, rule = 'budget', of = level.user, id = b.id, window = b.window, limit = b.limit, unit = b.unit,
    used = level[TOTALS[b.unit]] - b.base, reserved = b.unit == 'c' and level.reserved or 0, resets = b.ends,
    retry_ms = need <= b.limit and b.ends < NEVER and b.ends - now or nil,
  }
end

-- Adds the violations of the rules that a path is under.
function levels.judge(user, ask, broken)
  for _, level in ipairs(levels.of(user)) do
    if ask.is_new and level.suspended and level.user ~= user then
      broken[#broken + 1] = { class = 1, room = 0, rule = 'suspended', of = level.user }
    end
    if level.breaker then levels.breakers.judge(level, ask, broken) end
    levels.roll(level)
    for _, b in ipairs(level.budgets) do judge_budget(level, b, ask, broken) end
    for _, l in ipairs(level.limits) do levels.buckets.judge(level, l, ask, broken) end
  end
end

-- What the rules of a path's levels stand at, behind an answer: " ^" and for each level, "|" between, its user_id, what it has
-- counted, and its rules, "~" between; behind a rate limit what it lets through yet, and in how many ms all of it is back.
function levels.figures(user)
  local parts = {}
  for n, level in ipairs(levels.of(user)) do
    levels.roll(level)
    local words = { level.user, format('%d,%d,%d,%d', level.charged, level.reserved, level.holds, level.requests) }
    words[3] = (level.suspended and 's' or '') .. (level.is_pool and 'p' or '') .. '-'
    for _, b in ipairs(level.budgets) do words[#words + 1] = levels.pack_budget(b) end
    for _, l in ipairs(level.limits) do
      words[#words + 1] = format('%s,%d,%d', levels.pack_limit(l), levels.buckets.left(level, l, {}))
    end
    parts[n] = concat(words, '~')
  end
  return parts[1] and ' ^' .. concat(parts, '|') or ''
end

-- The tightest room that budgets leave for an amount, and the id and level of the budget; nil where none bounds it.
function levels.room(user, ask)
  local least, id, of
  for _, level in ipairs(levels.of(user)) do
    levels.roll(level)
    for _, b in ipairs(level.budgets) do
      local room = b.mode == 'e' and b.unit == 'c' and levels.room_of(level, b) - (levels.need(level, ask) - ask.amount)
      if room and (not least or room < least) then least, id, of = room, b.id, level.user end
    end
  end
  return least, id, of
end

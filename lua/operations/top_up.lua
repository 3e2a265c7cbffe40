-- Changes or tells what is bought for an account when few credits are left (state/top_up.lua).
-- ARGV    user_id, change ("" = none | set | on | off | remove | again: the request of that id has ended, and another one may be
--         asked for | failed: it has ended, and it is off now), value (set: below,amount,most,period,reference; again, failed:
--         the id; else "")
-- Answers ok user_id top_up (its word, "-" = none) | too_many; then the balances | no_top_up
-- Writes  accounts, outbox (account, where anything changed)

local changes = {}

function changes.set(state, _, _, id, value)
  return '~' .. (state or 'a') .. ',' .. value .. (id and id ~= '' and ',' .. id or '')
end

function changes.on(state, below, terms)
  return state == 'o' and '~a,' .. below .. terms
end

function changes.off(state, below, terms)
  return state ~= 'o' and '~o,' .. below .. terms
end

function changes.remove()
  return ''
end

function changes.again(state, below, terms, id, value)
  return state == 'w' and id == value and '~a,' .. below .. terms
end

function changes.failed(state, below, terms, id, value)
  return state == 'w' and id == value and '~o,' .. below .. terms
end

function operations.top_up(i)
  local a, change, value = account_of(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  local before = top_ups.of(a)
  local state, below, terms, id = match(before, top_ups.PATTERN)
  local after = before
  if change ~= '' then
    if not state and change ~= 'set' then return '0 no_top_up' end
    if not admit(a) then return '0 too_many' .. balances(a) end
    after = changes[change](state, below, terms, id, value) or before
    if after ~= '' and not match(a.thresholds, ';') then after = top_ups.judged(a, after, a.available) end -- as its entry will be
  end
  local answer = format('ok %s %s', a.user, after == '' and '-' or sub(after, 2)) .. balances(a)
  if after ~= before or current_key ~= '' then
    top_ups.put(a, after)
    local detail = settings_of(a)
    if after == '' then detail, a.tells_top_up = detail .. ',"top_up":""', false end
    if current_key ~= '' then detail = format('%s,"answered":"%s"', detail, answer) end
    record(a, 'account', 0, {}, now, detail, current_key, current_extra)
  end
  return answer
end

-- Lists the open reservations of an account, those that end first, first.
-- ARGV    user_id, cursor ("" = from the start; a member without its user), limit
-- Answers ok user_id next_cursor (or "-"), then for each ";" reservation_id amount expires_at_ms created_at_ms, then ";" and
--         the balances
function operations.reservations(i)
  local a, cursor, limit = account_of(ARGV[i]), ARGV[i + 1], ARGV[i + 2] + 0
  write_all()
  local parts, more = {}, '-'
  local from = cursor == '' and '[' .. a.user .. ' ' or '(' .. a.user .. ' ' .. cursor
  repeat
    local page = redis.call('ZRANGEBYLEX', AGENDA, from, '(' .. a.user .. '!', 'LIMIT', '0', format('%d', limit))
    for _, member in ipairs(page) do
      local kind, id = match(member, '^%S+ %d+ (%a) (%S+)$')
      if kind == 'h' and #parts < limit then
        local hold = hold_of(id)
        if not hold.path then
          parts[#parts + 1] = format('%s %d %d %d', id, pools.total(pools.held(hold)), hold.ends, hold.created)
          more = (gsub(sub(member, #a.user + 2), ' ', '~'))
        end
      end
    end
    from = '(' .. (page[#page] or '')
  until #page < limit or #parts == limit
  if #parts < limit then more = '-' end
  return format('ok %s %s;', a.user, more) .. concat(parts, ';') .. ';' .. balances(a)
end

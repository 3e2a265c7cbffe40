-- Lists the live grants of an account that end before a time, by their end.
-- ARGV    user_id, until_ms (exclusive), cursor ("" = from the start; a member without its user), limit
-- Answers ok user_id next_cursor (or "-"), then for each grant ";" grant_id and its packed text, then ";" and the balances
function operations.expiring(i)
  local a, cursor, limit = account_of(ARGV[i]), ARGV[i + 2], ARGV[i + 3] + 0
  write_all()
  local parts, more = {}, '-'
  local from = cursor == '' and '[' .. a.user .. ' ' or '(' .. a.user .. ' ' .. cursor
  local to = format('(%s %013d', a.user, ARGV[i + 1])
  repeat
    local page = redis.call('ZRANGEBYLEX', AGENDA, from, to, 'LIMIT', '0', format('%d', limit))
    for _, member in ipairs(page) do
      local kind, id = match(member, '^%S+ %d+ (%a) (%S+)$')
      local g = kind == 'x' and #parts < limit and grant_of(a, id)
      if g and (g.class ~= 'X' or g.reserved > 0) then
        parts[#parts + 1] = id .. ' ' .. pack_grant(g)
        more = (gsub(sub(member, #a.user + 2), ' ', '~'))
      end
    end
    from = '(' .. (page[#page] or '')
  until #page < limit or #parts == limit
  if #parts < limit then more = '-' end
  return format('ok %s %s;', a.user, more) .. concat(parts, ';') .. ';' .. balances(a)
end

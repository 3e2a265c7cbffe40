-- Lists the grants of an account that Redis knows: those that burn, in burn order, then scheduled ones, then those
-- with nothing free.
-- ARGV    user_id, state (live | all), cursor ("" = from the start, "." = behind the front grant, else a member
--         without its user), limit
-- Answers ok user_id next_cursor (or "-"), then for each grant ";" grant_id and its packed text, then ";" and the balances
function operations.grants(i)
  local a, all, cursor, limit = account_of(ARGV[i]), ARGV[i + 1] == 'all', ARGV[i + 2], ARGV[i + 3] + 0
  write_all()
  local parts, listed = {}, 0
  local function list(g)
    if all or g.class ~= 'X' or g.reserved > 0 then
      parts[#parts + 1] = g.id .. ' ' .. pack_grant(g)
      listed = listed + 1
    end
  end
  if cursor == '' and a.front then list(a.front) end
  local first = '[' .. a.user .. ' '
  local from, more = (cursor == '' or cursor == '.') and first or '(' .. a.user .. ' ' .. cursor, '-'
  while listed < limit do
    local page = redis.call('ZRANGEBYLEX', ORDER, from, '(' .. a.user .. '!', 'LIMIT', '0', format('%d', limit - listed))
    for _, member in ipairs(page) do list(grant_of(a, match(member, '(%S+)$'))) end
    if #page == 0 then break end
    from = '(' .. page[#page]
  end
  if listed >= limit then more = from == first and '.' or (gsub(sub(from, #a.user + 3), ' ', '~')) end
  return format('ok %s %s;', a.user, more) .. concat(parts, ';') .. ';' .. balances(a)
end

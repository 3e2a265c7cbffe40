-- Takes note that the renewal which a grant announces will not come: its end is an end like any other, and alerts that
-- wait for the renewal already are judged now.
-- ARGV    user_id, grant_id
-- Answers ok user_id, then the balances
-- Writes  accounts, grants, outbox (account, with the alerts, if there are any)
function operations.lapse(i)
  local a, id = account_of(ARGV[i]), ARGV[i + 1]
  local g = grant_of(a, id)
  local _, _, mark, group = match(g and terms_of(g).at_end or '', AT_END_PATTERN)
  if mark == '@' then
    g.at_end = (gsub(g.at_end, '@', '!'))
    change_grant(a, g)
    change_account(a)
    if g.state == 'e' then
      renewed(a, group)
      local alerts = a.judged and alerts_of(a, 'account', 0) or ''
      if alerts ~= '' then record(a, 'account', 0, {}, now, join(settings_of(a), alerts)) end
    end
  end
  return format('ok %s', a.user) .. balances(a)
end
